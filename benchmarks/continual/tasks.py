"""Sequences of digits as tasks of a comparison: what is remembered of the old, against what is learned of the new."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch

import mtopt
from mtopt.experiments import Budget, Task

from .cuber_trainer import CuberTrainer
from .network import Classifier
from .streams import InTurn, Places, Recurring, Schedule, Stream, single_digits
from .trainer import ContinualTrainer, Memory
from .transfer import average_accuracy, backward_transfer, forward_transfer


class SequenceTask(Task):
    """A stream of digits, each part once: the errors right after learning, and what is left of them at the end.

    ``new`` is the mean error on each part when it was just learned, ``old`` the mean error at the end on all parts but
    the last. Further metrics are those of Lopez-Paz and Ranzato, see :mod:`transfer`.
    """

    objectives = (mtopt.Objective("new"), mtopt.Objective("old"))
    labels = ("error, part just learned", "error at the end, earlier parts")
    reference_point = (1.0, 1.0)
    learning_rates = (1e-2, 1.0)
    budget = Budget(steps=1000, points=1, trials=12, seeds=5)
    quick_budget = Budget(steps=250, points=1, trials=2, seeds=3)
    batch_size = 32
    memory_size = 20

    def __init__(self, name: str, title: str, stream: Callable[[], Stream]) -> None:
        self.name, self.title, self.stream = name, title, stream

    def schedule(self) -> Schedule:
        """When each part comes."""
        return InTurn(len(self.stream().names))

    def trainer(
        self,
        combiner: mtopt.Combiner,
        *,
        learning_rate: float,
        seed: int,
        point: int,
        points: int,
        method: Literal["rule", "cuber"] = "rule",
        memory: Memory = "together",
    ) -> ContinualTrainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + point)
            model = Classifier()
        parts = (model, combiner, self.stream(), self.schedule())
        if method == "cuber":
            return CuberTrainer(*parts, learning_rate=learning_rate, seed=seed)
        return ContinualTrainer(
            *parts, learning_rate=learning_rate, seed=seed, memory=memory, memory_size=self.memory_size
        )

    def data(self, split: str, *, seed: int) -> Places:
        return Places(self.stream(), seed=seed, batch_size=self.batch_size)

    def values(self, trainer: mtopt.MultiLossTrainer, split: str) -> Mapping[str, float]:
        assert isinstance(trainer, ContinualTrainer)
        untrained, *rows = trainer.matrix(split).tolist()
        last = rows[-1]
        return {
            "new": 1.0 - sum(row[k] for k, row in enumerate(rows)) / len(rows),
            "old": 1.0 - sum(last[:-1]) / len(last[:-1]),
            "average accuracy": average_accuracy(rows),
            "backward transfer": backward_transfer(rows),
            "forward transfer": forward_transfer(rows, untrained),
        }


class SCoLe(SequenceTask):
    """A long sequence of stages with two digits each that come back: one classifier of all ten.

    ``new`` is the mean error on a stage's two digits right after it, among ten classes; ``old`` the mean error on all
    ten digits, over the last tenth of the stages. ``knowledge accumulation`` is how much higher the accuracy on all
    digits is then than over the first tenth. Both means are ours, to smooth what jumps from stage to stage.
    """

    labels = ("error, digits of the stage", "error, all digits, last tenth")
    budget = Budget(steps=5000, points=1, trials=12, seeds=5)
    quick_budget = Budget(steps=300, points=1, trials=2, seeds=3)
    batch_size = 16

    def __init__(self) -> None:
        super().__init__("scole", "SCoLe: pairs of digits that come back", single_digits)

    def schedule(self) -> Schedule:
        return Recurring(len(self.stream().names))

    def values(self, trainer: mtopt.MultiLossTrainer, split: str) -> Mapping[str, float]:
        assert isinstance(trainer, ContinualTrainer)
        matrix = trainer.matrix(split)[1:]
        learned = [matrix[k, list(trainer.schedule.parts(k, trainer.schedule_seed))].mean() for k in range(len(matrix))]
        overall = matrix.mean(1)
        tenth = max(len(overall) // 10, 1)
        first, last = float(overall[:tenth].mean()), float(overall[-tenth:].mean())
        return {
            "new": 1.0 - float(sum(learned)) / len(learned),
            "old": 1.0 - last,
            "accuracy at the end": float(overall[-1]),
            "knowledge accumulation": last - first,
        }
