"""The grid: its cells, and the key that a run is known by."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mtopt._version import __version__
from mtopt.experiments._contestant import Contestant
from mtopt.experiments._space import Point, search_space
from mtopt.experiments._task import Budget, Suite, Task

TUNING_SEED = 1_000_003
"""Tuning runs on a seed of its own: the seeds of the comparison are unseen when a configuration is chosen."""


@dataclass(frozen=True, slots=True)
class Run:
    """One cell of the grid: a rule with a configuration and a seed on a task; ``name`` is its contestant's."""

    suite: str
    task: str
    fingerprint: str
    name: str
    combiner: str
    hyperparameters: Mapping[str, Any]
    learning_rate: float
    seed: int
    steps: int
    points: int
    options: Mapping[str, Any] = field(default_factory=dict)
    evaluations: int = 1
    stage: str = field(compare=False, default="final")
    trial: int = field(compare=False, default=0)

    @property
    def key(self) -> str:
        """A hash of all that the result depends on; the stage and the name do not enter."""
        apart = ("stage", "trial", "name")
        settings = {k: v for k, v in asdict(self).items() if k not in apart} | {"version": __version__}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]

    def __str__(self) -> str:
        return f"{self.suite}/{self.task} {self.name} seed {self.seed}"


def trial_run(
    suite: Suite, task: Task, entry: Contestant, budget: Budget, *, fingerprint: str, point: Point | None, trial: int
) -> Run:
    """One configuration of a contestant on the tuning seed: that at a point of its :func:`search_space`.

    None is the middle of the learning-rate range with the rule's defaults. ``fingerprint`` is the task's, which takes
    long to make where it holds much data.
    """
    low, high = task.learning_rates
    rate, values = math.sqrt(low * high), dict[str, Any]()
    if point is not None:
        rate, values = search_space(task, entry, budget).configuration(point)
    return Run(
        suite=suite.name,
        task=task.name,
        fingerprint=fingerprint,
        name=entry.name,
        combiner=entry.combiner,
        hyperparameters={**entry.hyperparameters, **values},
        learning_rate=float(f"{rate:.3g}"),
        seed=TUNING_SEED,
        steps=budget.steps,
        points=budget.points,
        options=dict(entry.options),
        evaluations=budget.evaluations,
        stage="tune",
        trial=trial,
    )


def final_runs(best: Run, seeds: int) -> list[Run]:
    """The chosen configuration on the seeds of the comparison."""
    return [replaced(best, seed=seed, stage="final") for seed in range(seeds)]


def replaced(run: Run, **changes: Any) -> Run:
    """The run with other settings."""
    return Run(**{**asdict(run), **changes})
