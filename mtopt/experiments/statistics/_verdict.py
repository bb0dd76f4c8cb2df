"""Which rules beat the one that all are compared with, by how much and how sure, in words and in numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtopt._text import joined
from mtopt._views import data_frame, html_table
from mtopt.experiments.statistics._aggregate import profile
from mtopt.experiments.statistics._estimate import Estimate
from mtopt.experiments.statistics._finding import Finding, Scores, find
from mtopt.experiments.statistics._paired import LEVEL, fewest_tasks, least_p

if TYPE_CHECKING:
    import pandas as pd

_NEAREST = 3  # how many rules are named where none is decided


@dataclass(frozen=True)
class Verdict:
    """What a comparison says of each rule against one of them: ``print(verdict)`` in words, :meth:`rows` in numbers.

    A difference is (a - b) / max(a, b) of two mean scores over the seeds of a task: a share of the better one's
    hypervolume. Wilcoxon's signed-rank test goes over the tasks, with Holm's correction for the rules.

    Attributes:
        against: the rule that the others are compared with.
        called: what it is called in the words.
        findings: one for each other rule, by difference, the largest first.
        scores: what it was made from: the seeds' scores for each task and rule.
        static: rules that are static scalarization themselves, with weights chosen in another way.
    """

    against: str
    called: str
    findings: tuple[Finding, ...]
    scores: Scores
    static: frozenset[str]

    @property
    def better(self) -> list[str]:
        """The rules that beat it, at 5 % with Holm's correction."""
        return [one.rule for one in self.findings if one.outcome == "better"]

    @property
    def worse(self) -> list[str]:
        """The rules that it beats."""
        return [one.rule for one in self.findings if one.outcome == "worse"]

    @property
    def headline(self) -> str:
        """Who beats it, and that none does, in a sentence or two."""
        count = len(self.findings)
        if not count:
            return f"No rule was compared with {self.called}."
        better, worse = self.better, self.worse
        over = f"over {_tasks(self.findings)}"
        if count == 1:
            (one,) = self.findings
            verb = {"better": "beats", "worse": "is worse than", "undecided": "cannot be told from"}[one.outcome]
            return f"{one.rule} {verb} {self.called} {over}."
        if not better:
            told = f"None of the {count} rules beats {self.called} {over}."
        else:
            verb = "beats" if len(better) == 1 else "beat"
            told = f"{len(better)} of the {count} rules {verb} {self.called} {over}: {joined(better)}."
        if worse:
            told += f" {len(worse)} {'is' if len(worse) == 1 else 'are'} worse: {joined(worse)}."
        if undecided := count - len(better) - len(worse):
            others = f"the other {undecided}" if undecided > 1 else "the other one"
            told += f" No difference could be established for {'any of them' if undecided == count else others}."
        return told

    @property
    def details(self) -> list[str]:
        """A sentence for each rule that is better or worse; where there is none, for those that are furthest ahead."""
        told = [one for one in self.findings if one.outcome != "undecided"] or self.findings[:_NEAREST]
        return [self._detail(one) for one in told]

    @property
    def limits(self) -> list[str]:
        """What these tasks and seeds cannot say."""
        return [*self._limits_of_tasks(), *self._limits_of_seeds(), *self._left_out(), *self._static()]

    def rows(self) -> list[dict[str, Any]]:
        """One plain dictionary per rule, for a data frame: differences are shares, None is an end that there is not."""
        return [
            {
                "rule": one.rule,
                "against": self.against,
                "outcome": one.outcome,
                "tasks": one.tasks,
                "ahead": one.ahead,
                "behind": one.behind,
                **_columns("difference", one.gain),
                "p_value": one.p_value,
                "p_holm": one.p_holm,
                **_columns("run_difference", one.run_gain),
                **_columns("probability", one.probability),
                "seeds": one.seeds,
            }
            for one in self.findings
        ]

    def to_frame(self) -> pd.DataFrame:
        """:meth:`rows` as a ``pandas.DataFrame``.

        Raises:
            ImportError: pandas is not installed.
        """
        return data_frame(self.rows())

    @property
    def columns(self) -> tuple[str, ...]:
        """The heads of :meth:`table`."""
        return "rule", "outcome", "difference", "ahead / behind", "p", "p (Holm)", "runs' difference", "P(run ahead)"

    def table(self) -> list[list[str]]:
        """:attr:`columns` of each rule as texts."""
        return [
            [
                one.rule,
                one.outcome,
                _percent(one.gain),
                f"{one.ahead} / {one.behind} of {one.tasks}",
                f"{one.p_value:.2g}",
                f"{one.p_holm:.2g}",
                _percent(one.run_gain),
                one.probability.text(".2f"),
            ]
            for one in self.findings
        ]

    def profiles(self, thresholds: npt.ArrayLike) -> dict[str, npt.NDArray[np.float64]]:
        """Performance profiles: the share of each rule's runs whose difference is above a threshold, mean over tasks.

        The difference of a run is that from the mean of ``against`` on the task. Agarwal et al., NeurIPS 2021.
        """
        shared = [task for task in self.scores.values() if len(task.get(self.against, ()))]
        found = {}
        for rule in (self.against, *(one.rule for one in self.findings)):
            tasks = [task for task in shared if len(task.get(rule, ()))]
            if tasks:
                found[rule] = profile([t[rule] for t in tasks], [t[self.against] for t in tasks], thresholds)
        return found

    def __str__(self) -> str:
        return "\n".join([self.headline, *(f"- {line}" for line in self.details), *self.limits])

    def _repr_html_(self) -> str:
        return html_table(self.headline, self.columns, self.table(), note=" ".join(self.limits))

    def _detail(self, one: Finding) -> str:
        p = f"p = {one.p_value:.2g}"
        if len(self.findings) > 1:
            p += f", {one.p_holm:.2g} with Holm's correction for {len(self.findings)} rules"
        doubt = ", not significant" if one.outcome == "undecided" else ""
        return (
            f"{one.rule}{doubt}: {_percent(one.gain, ' hypervolume', '95 % interval ')}, ahead on {one.ahead} of "
            f"{_number(one.tasks)} ({p}); a run of it is ahead of one of {self.against}'s with probability "
            f"{one.probability.text('.2f')}."
        )

    def _limits_of_tasks(self) -> list[str]:
        count = len(self.findings)
        if not count:
            return []
        most = max(one.tasks for one in self.findings)
        least = least_p(most, count)
        if least < LEVEL:
            return []
        corrected = f", {least:.2g} with Holm's correction for {count} rules" if count > 1 else ""
        rules = f" for one rule and {fewest_tasks(count)} for {count}" if count > 1 else ""
        return [
            f"Over {_number(most)} Wilcoxon's test can give no p-value below {least_p(most):.2g}{corrected}: "
            f"no difference can be significant at 5 %, however large. That takes {fewest_tasks(1)} tasks{rules}. "
            f"What the numbers say, they say of {'this task' if most == 1 else 'these tasks'} alone."
        ]

    def _limits_of_seeds(self) -> list[str]:
        if all(one.seeds > 1 for one in self.findings):
            return []
        return [
            "Where a task has one seed, what is chance in its runs is not known, and their intervals are without it."
        ]

    def _left_out(self) -> list[str]:
        pairs = ((one.rule, task) for one in self.findings for task in one.left_out)
        told = [f"{rule} on {'/'.join(task) if isinstance(task, tuple) else task}" for rule, task in pairs]
        return [f"Not compared, since an error ended every run of one of the two: {joined(told)}."] if told else []

    def _static(self) -> list[str]:
        found = [one.rule for one in self.findings if one.rule in self.static]
        if not found:
            return []
        return [
            f"Static scalarization themselves, chosen in another way than {self.against}: {joined(found)}. Where they "
            "differ, it is by the choice of weights on validation and not by the rule."
        ]


def judge(scores: Scores, against: str, *, called: str | None = None, static: Collection[str] = ()) -> Verdict:
    """The verdict on every rule of ``scores`` but one against that one.

    Raises:
        ValueError: a score is NaN, infinite or negative.
    """
    for task, rules in scores.items():
        for rule, runs in rules.items():
            if not all(0.0 <= score < math.inf for score in runs):
                raise ValueError(
                    f"scores of {rule!r} on {task!r} must be finite and not negative, found {list(runs)}; a run that "
                    "diverged has 0"
                )
    return Verdict(against, called or against, tuple(find(scores, against)), scores, frozenset(static))


def _columns(name: str, found: Estimate) -> dict[str, float | None]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _percent(found: Estimate, what: str = "", before: str = "") -> str:
    shown = f"{100 * found.value:+.1f} %{what}"
    if found.low is None or found.high is None:
        return shown
    return f"{shown} ({before}{100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _tasks(findings: Sequence[Finding]) -> str:
    counts = {one.tasks for one in findings}
    return _number(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)} tasks"


def _number(tasks: int) -> str:
    return f"{tasks} task{'' if tasks == 1 else 's'}"
