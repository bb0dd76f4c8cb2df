"""Evaluating on held-out data while training."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

from mtopt._counts import check_count
from mtopt.autograd import StepRecord
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import Training
from mtopt.training.callbacks._weight_average import WeightAverage


class Evaluator(Callback):
    """Evaluates on held-out data while training.

    Args:
        data: an iterable of batches that starts anew with each ``iter(data)``.
        every: steps from one evaluation to the next. Default: at the end of each epoch.
        split: the name under which ``trainer.history.evaluations(split)`` keeps the values.
        average: evaluate with these averaged weights in place of the model's own. Default: the model's own.

    Raises:
        ValueError: ``every`` is not a positive int.
    """

    def __init__(
        self,
        data: Iterable[Any] | None,
        *,
        every: int | None = None,
        split: str = "validation",
        average: WeightAverage | None = None,
    ) -> None:
        self.data = data
        self.every = check_count("every", every)
        self.split = split
        self.average = average

    def on_step_end(self, trainer: Training, record: StepRecord) -> None:
        if self.every is not None and trainer.step % self.every == 0:
            self._evaluate(trainer)

    def on_epoch_end(self, trainer: Training) -> None:
        if self.every is None:
            self._evaluate(trainer)

    def _evaluate(self, trainer: Training) -> None:
        with nullcontext() if self.average is None else self.average.applied(trainer):
            trainer.evaluate(self.data, split=self.split)
