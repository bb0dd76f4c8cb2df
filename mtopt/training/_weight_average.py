"""A running average of the weights beside those that are trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mtopt.autograd import StepRecord
from mtopt.training._callbacks import Callback

if TYPE_CHECKING:
    from mtopt.training._trainer import MultiLossTrainer


class WeightAverage(Callback):
    """Exponential moving average of the model, buffers included: ``a <- decay * a + (1 - decay) * w`` after each step.

    It starts as a copy of the weights after the first step, and never touches the training. Evaluate it beside the
    weights themselves, under a split of its own, and keep the best::

        average = mtopt.training.WeightAverage(0.999)
        callbacks = [
            average,
            mtopt.Evaluator(validation, split="averaged", average=average),
            mtopt.training.BestCheckpoint("averaged", "accuracy", mode="max"),
        ]

    The file that :class:`BestCheckpoint` writes then holds the averaged weights as its model. After ``fit``, ``with
    average.applied(trainer): ...`` lets the model have them for a while, and ``average.copy_to(model)`` for good.

    A step that was skipped moves no average. The average takes as much memory as the model, on its device.

    Args:
        decay: in [0, 1). Default: 0.999.

    Raises:
        ValueError: another decay.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), found {decay!r}")
        self.decay = decay
        self._averaged: AveragedModel | None = None
        self._loaded: Mapping[str, Any] | None = None  # until there is a model to load it into

    def on_fit_start(self, trainer: MultiLossTrainer) -> None:
        self._average_of(trainer.model)

    def on_step_end(self, trainer: MultiLossTrainer, record: StepRecord) -> None:
        if not record.skipped:
            self._average_of(trainer.model).update_parameters(trainer.model)

    def copy_to(self, model: torch.nn.Module) -> None:
        """Give ``model`` the averaged weights; its own are lost."""
        model.load_state_dict(self._average_of(model).module.state_dict())

    @contextmanager
    def applied(self, trainer: MultiLossTrainer) -> Iterator[None]:
        """Within the block the trainer's model has the averaged weights; afterwards its own, bit for bit."""
        own = copy.deepcopy(trainer.model.state_dict())
        self.copy_to(trainer.model)
        try:
            yield
        finally:
            trainer.model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        if self._averaged is not None:
            return {"averaged": self._averaged.state_dict()}
        return dict(self._loaded or {})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._averaged, self._loaded = None, state_dict

    def _average_of(self, model: torch.nn.Module) -> AveragedModel:
        if self._averaged is None:
            average: Any = get_ema_multi_avg_fn  # torch leaves it untyped
            self._averaged = AveragedModel(model, multi_avg_fn=average(self.decay), use_buffers=True)
            if self._loaded is not None:
                self._averaged.load_state_dict(self._loaded["averaged"])
                self._loaded = None
        return self._averaged
