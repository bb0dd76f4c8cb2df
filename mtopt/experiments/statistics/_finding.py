"""One rule against the one that all are compared with: how far ahead it is, and how sure that is."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from mtopt.experiments.statistics._aggregate import Runs, gain, interquartile_gain, probability_of_improvement
from mtopt.experiments.statistics._estimate import Estimate
from mtopt.experiments.statistics._paired import LEVEL, holm, signed_rank

Scores = Mapping[Any, Mapping[str, Sequence[float]]]
"""For each task and rule the scores of the seeds, from 0 on, higher is better; empty where errors left none."""


@dataclass(frozen=True)
class Finding:
    """What the tasks that two rules share say of them. All but ``p_holm`` follows from the two alone.

    Attributes:
        rule: which one.
        tasks: how many tasks were compared.
        ahead, behind: on how many of them its mean over seeds is above and below.
        gain: the middle difference over tasks, (a - b) / max(a, b) of the means over seeds, with its 95 % interval.
        p_value: Wilcoxon's signed-rank test over the tasks, of this pair alone.
        p_holm: the same with Holm's correction for all the rules of the verdict.
        left_out: tasks without a result of one of the two, because of an error of code.
        own, base: the two rules' scores that were compared.
    """

    rule: str
    tasks: int
    ahead: int
    behind: int
    gain: Estimate
    p_value: float
    p_holm: float
    left_out: tuple[Hashable, ...]
    own: Runs = field(repr=False)
    base: Runs = field(repr=False)

    @property
    def outcome(self) -> Literal["better", "worse", "undecided"]:
        """At 5 %, with Holm's correction. The middle difference is zero where most tasks are ties."""
        if not self.p_holm < LEVEL:
            return "undecided"
        return "better" if (self.gain.value or self.ahead - self.behind) > 0 else "worse"

    @property
    def seeds(self) -> int:
        """The fewest scores on a task."""
        return min(len(runs) for runs in [*self.own, *self.base])

    @cached_property
    def run_gain(self) -> Estimate:
        """Interquartile mean of the same difference over all runs, with its bootstrap interval."""
        return interquartile_gain(self.own, self.base)

    @cached_property
    def probability(self) -> Estimate:
        """That a run is above one of the other's on a task, with its bootstrap interval."""
        return probability_of_improvement(self.own, self.base)


def find(scores: Scores, against: str) -> list[Finding]:
    """A finding for every other rule that shares a task with ``against``, by gain, the largest first."""
    rules = dict.fromkeys(rule for task in scores.values() for rule in task if rule != against)
    found = [one for rule in rules if (one := _pair(scores, rule, against)) is not None]
    corrected = holm([one.p_value for one in found])
    whole = [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]
    return sorted(whole, key=lambda one: -one.gain.value)


def _pair(scores: Scores, rule: str, against: str) -> Finding | None:
    both = {name: task for name, task in scores.items() if rule in task and against in task}
    shared = [task for task in both.values() if len(task[rule]) and len(task[against])]
    if not shared:
        return None
    own, base = [task[rule] for task in shared], [task[against] for task in shared]
    differences = gain([np.mean(runs) for runs in own], [np.mean(runs) for runs in base])
    middle, p_value = signed_rank(differences)
    return Finding(
        rule=rule,
        tasks=len(shared),
        ahead=int((differences > 0).sum()),
        behind=int((differences < 0).sum()),
        gain=middle,
        p_value=p_value,
        p_holm=p_value,
        left_out=tuple(name for name, task in both.items() if not (len(task[rule]) and len(task[against]))),
        own=own,
        base=base,
    )
