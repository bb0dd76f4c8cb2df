"""A suite that runs in milliseconds, and can be told through the environment to log, to fail and to die."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mtopt
from mtopt.experiments import Budget, Suite, Task
from mtopt.experiments._contestant import Contestant, as_contestant
from mtopt.experiments._plan import Run
from mtopt.experiments._tuning import Tuning

LOG = "MTOPT_TEST_LOG"
"""A file: every finished training appends a line to it."""

KILL_AT = "MTOPT_TEST_KILL_AT"
"""The process that would finish this training kills itself with SIGKILL instead."""


class Parabolas(mtopt.MultiLossTrainer):
    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        (x,) = self.model.parameters()
        return {"near": (x + 1).square().sum(), "far": (x - 1).square().sum()}


class ParabolasTask(Task):
    """Two parabolas; the front is sqrt(f1) + sqrt(f2) = 2."""

    objectives = (mtopt.Objective("near"), mtopt.Objective("far"))
    reference_point = (9.0, 9.0)
    learning_rates = (1e-2, 0.4)
    budget = Budget(steps=20, points=1, trials=3, seeds=2)
    quick_budget = Budget(steps=5, points=2, trials=2, seeds=1)

    def __init__(self, name: str = "parabolas") -> None:
        self.name = name

    def trainer(
        self, combiner: mtopt.Combiner, *, learning_rate: float, seed: int, point: int, points: int
    ) -> Parabolas:
        start = torch.Generator().manual_seed(seed + point)
        model = torch.nn.ParameterList([torch.nn.Parameter(torch.rand(1, generator=start) * 4 - 2)])
        return Parabolas(model, torch.optim.SGD(model.parameters(), lr=learning_rate), combiner)

    def values(self, trainer: mtopt.MultiLossTrainer, split: str, *, seed: int) -> Mapping[str, float]:
        if split == "test":
            _log_or_die()
        return {**{k: float(v.detach()) for k, v in trainer.losses(None).items()}, "extra": 1.5}

    def front(self, points: int = 50) -> np.ndarray:
        x = np.linspace(-1, 1, points)
        return np.stack([(x + 1) ** 2, (x - 1) ** 2], axis=1)


def _log_or_die() -> None:
    if LOG not in os.environ:
        return
    log = Path(os.environ[LOG])
    count = len(log.read_text().splitlines()) if log.exists() else 0
    if count == int(os.environ.get(KILL_AT, -1)):
        os.kill(os.getpid(), signal.SIGKILL)
    with log.open("a") as file:
        file.write("done\n")


suite = Suite("tiny", (ParabolasTask(), ParabolasTask("again")), combiners=("linear", "mgda"), about="For tests.")
task = suite.tasks[0]
no_suite = 3


def tuning_runs(suite: Suite, task: Task, rule: str | Contestant, budget: Budget) -> list[Run]:
    """The trials of a rule where nothing is learnt from their scores."""
    return Tuning(suite, task, as_contestant(rule), budget, fingerprint=task.fingerprint()).next_runs()
