"""The baseline: static scalarization with the best weights that there were, whatever the budget."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Mapping
from typing import Any

from mtopt.experiments._contestant import Contestant, rule_class
from mtopt.experiments._plan import Run, replaced
from mtopt.experiments._space import halton, simplex_point, takes_preference
from mtopt.experiments._task import Task
from mtopt.pareto.preferences import uniform_preferences

BASELINE = "linear"
"""Tuned static scalarization: always in the table, since an untuned one makes any rule look good."""

_LINE, _SIMPLEX = 5, 10
"""How many weights are tried beside the tuning, for two objectives and for more."""

_LEAST = 0.2
"""The least weight of an objective, as a share of an equal one: at the corners minimisers may be dominated."""


def sweep(best: Run, task: Task, entry: Contestant, *, tried: int) -> list[Run]:
    """The baseline at weights spread over the simplex, with the learning rate of its best trial, on the tuning seed.

    Five weights on a line for two objectives, 0.1 to 0.9; ten for more: a lattice (Das and Dennis 1998) up to four
    objectives, Halton points beyond. None where a run is several trainings that spread the weights themselves, or where
    the contestant leaves nothing to tune. ``tried`` is the number of trials so far.
    """
    spread = best.points > 1 and task.spread_preferences
    if spread or not entry.tuned or "preference" in entry.hyperparameters or not takes_preference(entry.rule):
        return []
    return [
        replaced(best, hyperparameters={**best.hyperparameters, "preference": weights}, trial=trial)
        for trial, weights in enumerate(static_weights(len(task.objectives)), start=tried)
    ]


def static_weights(objectives: int) -> list[list[float]]:
    """The weights of :func:`sweep`: lists of K numbers, none of them near zero, that sum to one."""
    if objectives <= 4:
        count = _LINE if objectives == 2 else _SIMPLEX
        rows = uniform_preferences(objectives, count, minimum=_LEAST / objectives).tolist()
    else:
        cube = halton(objectives - 1, _SIMPLEX, seed=zlib.crc32(b"static weights"))
        rows = [[_LEAST / objectives + (1 - _LEAST) * share for share in simplex_point(point)] for point in cube]
    rounded = [[round(share, 6) for share in row[:-1]] for row in rows]
    return [[*row, round(1.0 - sum(row), 6)] for row in rounded]


def is_static(entry: Contestant, baseline: Contestant, task: Task) -> bool:
    """Whether a contestant is the baseline with weights of its own: the same rule on the same losses."""
    same = rule_class(entry.combiner) is rule_class(baseline.combiner)
    return same and _training(entry, task) == _training(baseline, task)


def is_copy(entry: Contestant, baseline: Contestant, task: Task) -> bool:
    """Whether a contestant is the baseline under another name: it is to be chosen alike, and tries no less."""
    return entry.tuned and not entry.hyperparameters and is_static(entry, baseline, task)


def _training(entry: Contestant, task: Task) -> Mapping[str, Any]:
    """What the task's trainer is called with beside the rule, defaults included; what is empty is as good as None."""
    known = inspect.signature(task.trainer).parameters.values()
    defaults = {each.name: each.default for each in known if each.default is not inspect.Parameter.empty}
    return {name: value or None for name, value in {**defaults, **entry.options}.items()}
