"""The grid: which configurations every rule tries, and the key that a run is known by."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mtopt._version import __version__
from mtopt.combiners import Combiner
from mtopt.experiments._contestant import Contestant, as_contestant
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


def takes_preference(rule: type[Combiner]) -> bool:
    """Whether the rule can be told how much each objective matters."""
    return "preference" in rule.hyperparameter_defaults()


def tuning_runs(
    suite: Suite, task: Task, entry: str | Contestant, budget: Budget, *, fingerprint: str | None = None
) -> list[Run]:
    """The trials of one contestant on one task: the same number for each that is tuned.

    Trial 0 is the middle of the learning-rate range with the rule's defaults. The others are Halton points, scrambled
    with a seed that depends on the task alone, over the learning rate, the rule's declared ``search_space`` and, where
    a run is one training, its preference; what the contestant fixes is left as it is. ``fingerprint`` is the task's,
    which takes long to make where it holds much data.
    """
    entry = as_contestant(entry)
    fingerprint = task.fingerprint() if fingerprint is None else fingerprint
    rule, fixed = entry.rule, dict(entry.hyperparameters)
    space = {name: spec for name, spec in rule.search_space.items() if name not in fixed}
    chosen = takes_preference(rule) and "preference" not in fixed and budget.points == 1
    free = len(task.objectives) - 1 if chosen else 0
    low, high = task.learning_rates
    trials = budget.trials if entry.tuned else 1
    cube = halton(1 + len(space) + free, trials - 1, seed=zlib.crc32(f"{suite.name}/{task.name}".encode()))
    runs = [_run(suite, task, fingerprint, entry, budget, fixed, math.sqrt(low * high), 0)]
    for trial, point in enumerate(cube, start=1):
        rate = low * (high / low) ** point[0]
        hyperparameters = {name: _drawn(spec, u) for (name, spec), u in zip(space.items(), point[1:], strict=False)}
        if free:
            hyperparameters["preference"] = simplex_point(point[1 + len(space) :])
        runs.append(_run(suite, task, fingerprint, entry, budget, {**fixed, **hyperparameters}, rate, trial))
    return runs


def final_runs(best: Run, seeds: int) -> list[Run]:
    """The chosen configuration on the seeds of the comparison."""
    return [replaced(best, seed=seed, stage="final") for seed in range(seeds)]


def replaced(run: Run, **changes: Any) -> Run:
    """The run with other settings."""
    return Run(**{**asdict(run), **changes})


def _run(
    suite: Suite,
    task: Task,
    fingerprint: str,
    entry: Contestant,
    budget: Budget,
    hyperparameters: Mapping[str, Any],
    learning_rate: float,
    trial: int,
) -> Run:
    return Run(
        suite=suite.name,
        task=task.name,
        fingerprint=fingerprint,
        name=entry.name,
        combiner=entry.combiner,
        hyperparameters=dict(hyperparameters),
        learning_rate=float(f"{learning_rate:.3g}"),
        seed=TUNING_SEED,
        steps=budget.steps,
        points=budget.points,
        options=dict(entry.options),
        evaluations=budget.evaluations,
        stage="tune",
        trial=trial,
    )


def halton(dimension: int, count: int, *, seed: int) -> list[list[float]]:
    """``count`` points of the scrambled Halton sequence in the unit cube."""
    if count <= 0:
        return []
    from scipy.stats import qmc

    sampler = qmc.Halton(d=dimension, scramble=True, rng=np.random.default_rng(seed))
    return [list(map(float, row)) for row in sampler.random(count)]


def _drawn(spec: tuple[Any, ...], u: float) -> Any:
    """A value of a search range: ``("log", low, high)``, ``("uniform", low, high)`` or ``("choice", *options)``."""
    kind, *rest = spec
    if kind == "log":
        low, high = rest
        return float(f"{low * (high / low) ** u:.3g}")
    if kind == "uniform":
        low, high = rest
        return float(f"{low + (high - low) * u:.3g}")
    if kind == "choice":
        return rest[min(int(u * len(rest)), len(rest) - 1)]
    raise ValueError(f"a search range is ('log', low, high), ('uniform', low, high) or ('choice', ...), found {spec!r}")


def simplex_point(cube: list[float]) -> list[float]:
    """A preference from K - 1 coordinates in [0, 1], uniform on the simplex when they are."""
    cuts = [0.0, *sorted(cube), 1.0]
    shares = [round(b - a, 4) for a, b in itertools.pairwise(cuts)]
    shares[-1] = round(1.0 - sum(shares[:-1]), 4)
    return shares
