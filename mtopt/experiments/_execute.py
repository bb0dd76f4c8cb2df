"""Running one cell of the grid."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtopt.autograd import StepRecord
from mtopt.combiners import Combiner
from mtopt.diagnosis import StarvationWarning
from mtopt.experiments._contestant import rule_class
from mtopt.experiments._environment import environment
from mtopt.experiments._failure import attempt
from mtopt.experiments._memory import peak_bytes
from mtopt.experiments._outputs import (
    check_even,
    check_views,
    read_named,
    read_number,
    read_trainer,
    take_values,
    tell_nonfinite,
)
from mtopt.experiments._plan import Run
from mtopt.experiments._space import takes_preference
from mtopt.experiments._task import Task
from mtopt.pareto import hypervolume
from mtopt.pareto.preferences import uniform_preferences
from mtopt.training import Callback, MultiLossTrainer

CURVE_POINTS = 100


def execute(run: Run, task: Task) -> tuple[str, dict[str, Any]]:
    """``("done", result)``, or ``("failed", ...)`` with what is kept of the exception that ended the run.

    A run is ``run.points`` trainings, judged together.
    """
    torch.set_num_threads(1)
    status, result = attempt(_train_all, run, task)
    return status, {**result, "environment": {**environment(), "task": run.fingerprint}}


def _train_all(run: Run, task: Task) -> dict[str, Any]:
    trainings = [_train(run, task, point) for point in range(run.points)]
    for split in ("validation", "test"):
        check_even([values[split] for t in trainings for values in t["values"]], task, split)
    minimised = {
        split: [[values[split][o.name] * o.sign for o in task.objectives] for t in trainings for values in t["values"]]
        for split in ("validation", "test")
    }
    reference = [r * o.sign for r, o in zip(task.reference_point, task.objectives, strict=True)]
    last = [t["values"][-1]["test"] for t in trainings]
    return {
        "score": {split: _hypervolume(points, reference) for split, points in minimised.items()},
        "points": minimised,
        "metrics": {
            name: [values[name] for values in last]
            for name in last[0]
            if run.evaluations > 1 or name not in {o.name for o in task.objectives}
        },
        "paths": [_path(t) for t in trainings] if run.evaluations > 1 else [],
        "landmarks": trainings[0]["landmarks"],
        "curves": [t["curve"] for t in trainings],
        "positions": [t["positions"] for t in trainings if t["positions"]],
        "cost": {
            "cpu_seconds": sum(t["cpu_seconds"] for t in trainings),
            "steps": sum(t["steps"] for t in trainings),
            "backwards_per_step": trainings[0]["backwards"],
            "peak_bytes": trainings[0]["peak_bytes"],
        },
        "nonfinite": tell_nonfinite([values["test"] for t in trainings for values in t["values"]], task),
        "skipped": sum(t["skipped"] for t in trainings),
        "conflict_rate": _mean_or_none([t["conflict_rate"] for t in trainings]),
        "cosine": _mean_or_none([t["cosine"] for t in trainings]),
    }


def _train(run: Run, task: Task, point: int) -> dict[str, Any]:
    made = task.trainer(
        _combiner(run, task, point),
        learning_rate=run.learning_rate,
        seed=run.seed,
        point=point,
        points=run.points,
        **run.options,
    )
    trainer = read_trainer(made, task)
    tracer = _Tracer(task, every=max(run.steps // CURVE_POINTS, 1))
    judge = _Judge(task, run)
    trainer.callbacks += [tracer, judge]
    data = task.data("train", seed=run.seed)
    started = time.process_time()
    with warnings.catch_warnings():  # which losses a rule leaves untrained is what the comparison shows
        warnings.simplefilter("ignore", StarvationWarning)
        trainer.fit(data, steps=run.steps)
    cpu_seconds = time.process_time() - started - judge.seconds
    history = trainer.history
    if len(judge.steps) < run.evaluations:  # the last one, or one that fell on no step's end
        judge.look(trainer, len(history))
    landmarks = _landmarks(task, trainer) if point == 0 else {}
    if point == 0 and run.evaluations > 1:
        check_views(judge.values[-1]["test"], landmarks, task)
    count = trainer.batches_per_step
    batches = [None] * count if data is None else list(itertools.islice(data, count))
    batch = batches if count > 1 else batches[0]
    return {
        "values": judge.values,
        "steps_of_values": judge.steps,
        "landmarks": landmarks,
        "curve": _thinned(history.losses, len(history), task),
        "positions": tracer.positions,
        "cpu_seconds": cpu_seconds,
        "steps": len(history),
        "skipped": history.skipped,
        "backwards": tracer.backwards,
        "conflict_rate": tracer.conflict_rate,
        "cosine": tracer.cosine,
        # after the values are taken: one step more changes nothing that is reported
        "peak_bytes": peak_bytes(lambda: trainer.training_step(batch)) if point == 0 else None,
    }


def _landmarks(task: Task, trainer: MultiLossTrainer) -> dict[str, dict[str, float]]:
    where = f"landmarks of task {task.name!r}"
    return {name: read_named(values, f"{where}, {name!r},") for name, values in dict(task.landmarks(trainer)).items()}


def _path(training: Mapping[str, Any]) -> dict[str, list[float]]:
    """Every value on the test split along one training, and the steps it was taken after."""
    values = [both["test"] for both in training["values"]]
    return {"step": training["steps_of_values"], **{name: [v[name] for v in values] for name in values[0]}}


def _combiner(run: Run, task: Task, point: int) -> Combiner:
    rule = rule_class(run.combiner)
    hyperparameters: dict[str, Any] = dict(run.hyperparameters)
    spread_over = takes_preference(rule) and "preference" not in hyperparameters
    if spread_over and run.points > 1 and task.spread_preferences:
        # the corners themselves would leave an objective out: their minimisers may be dominated
        spread = uniform_preferences(len(task.objectives), run.points, minimum=0.02)
        hyperparameters["preference"] = spread[point].tolist()
    if "seed" in rule.hyperparameter_defaults():
        hyperparameters.setdefault("seed", run.seed * 1000 + point)
    return rule(**hyperparameters)


class _Judge(Callback):
    """Takes a training's values at ``run.evaluations`` evenly spread steps, and counts the time that it takes."""

    def __init__(self, task: Task, run: Run) -> None:
        self._task, self._seed = task, run.seed
        self._marks = {round(run.steps * (i + 1) / run.evaluations) for i in range(run.evaluations - 1)}
        self.steps: list[int] = []
        self.values: list[dict[str, dict[str, float]]] = []
        self.seconds = 0.0

    def on_step_end(self, trainer: MultiLossTrainer, record: StepRecord) -> None:
        if record.step in self._marks:
            self.look(trainer, record.step)

    def look(self, trainer: MultiLossTrainer, step: int) -> None:
        started = time.process_time()
        test = self._taken(trainer, "test")
        validation = self._taken(trainer, "validation") if self._task.splits_differ else test
        self.steps.append(step)
        self.values.append({"validation": validation, "test": test})
        self.seconds += time.process_time() - started

    def _taken(self, trainer: MultiLossTrainer, split: str) -> dict[str, float]:
        return take_values(self._task, trainer, split, self._seed)


class _Tracer(Callback):
    """Where the training went, how many backward passes a step took, how often gradients conflicted and how much."""

    def __init__(self, task: Task, *, every: int) -> None:
        self.task, self.every = task, every
        self.positions: list[list[float]] = []
        self.backwards = 0
        self.conflict_rate: float | None = None
        self.cosine: float | None = None
        self._steps = self._conflicting = 0
        self._cosines: list[float] = []

    def on_fit_start(self, trainer: MultiLossTrainer) -> None:
        self._look(trainer)

    def on_step_end(self, trainer: MultiLossTrainer, record: StepRecord) -> None:
        self.backwards = max(self.backwards, record.backwards)
        if record.conflicts is not None:
            self._steps += 1
            self._conflicting += record.conflicts > 0
            self.conflict_rate = self._conflicting / self._steps
        if record.cosines is not None and len(record.cosines) == 2:
            self._cosines.append(float(record.cosines[0][1]))
            self.cosine = float(np.mean(self._cosines))
        if record.step is not None and record.step % self.every == 0:
            self._look(trainer)

    def _look(self, trainer: MultiLossTrainer) -> None:
        where = self.task.position(trainer)
        if where is not None:
            numbers = [read_number(x, f"position of task {self.task.name!r}") for x in where]
            self.positions.append([float(f"{x:.6g}") for x in numbers])


def _thinned(losses: Mapping[str, npt.NDArray[np.float64]], steps: int, task: Task) -> dict[str, list[float | None]]:
    """At most CURVE_POINTS means of consecutive steps of each loss, and the step each window ends at."""
    if "step" in losses:
        raise ValueError(f"a loss of task {task.name!r} is named 'step', which the steps have; give it another name")
    edges = np.unique(np.linspace(0, steps, CURVE_POINTS + 1).round().astype(int))
    windows = list(itertools.pairwise(edges))
    curve: dict[str, list[float | None]] = {"step": [int(end) for _, end in windows]}
    for name, values in losses.items():
        curve[name] = [_mean_or_none(values[a:b].tolist()) for a, b in windows]
    return curve


def _mean_or_none(values: list[float | None]) -> float | None:
    finite = [v for v in values if v is not None and np.isfinite(v)]
    return float(f"{np.mean(finite):.6g}") if finite else None


def _hypervolume(points: list[list[float]], reference: list[float]) -> float:
    """NaN when training diverged everywhere; else a point with NaN or infinity dominates nothing."""
    finite = [p for p in points if np.isfinite(p).all()]
    return float(hypervolume(np.array(finite), reference)) if finite else math.nan
