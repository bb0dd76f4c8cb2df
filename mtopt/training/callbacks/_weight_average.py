"""A running average of the weights beside those that are trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mtopt._content import content_of
from mtopt._replay import buffers_kept
from mtopt.autograd import StepRecord
from mtopt.distributed import is_sharded, unwrapped
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import Training

Named = Iterable[tuple[str, torch.Tensor]]


class WeightAverage(Callback):
    """Exponential moving average of the model: ``a <- decay * a + (1 - decay) * w`` after each step.

    Parameters and buffers of floating point are averaged (an infinite or NaN entry of a buffer is taken over); counts,
    indices, masks and a module's extra state have no average: they are those of the last step. It starts as a copy
    after the first step, and never touches the training. Evaluate it beside the weights themselves, under a split of
    its own, and keep the best::

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

    def on_fit_start(self, trainer: Training) -> None:
        if is_sharded(trainer.model.parameters()):
            raise ValueError(
                "WeightAverage keeps a copy of the model, which is sharded by fully_shard here and cannot be copied; "
                "leave the callback out, or shard no parameters"
            )
        self._average_of(unwrapped(trainer.model))

    def on_step_end(self, trainer: Training, record: StepRecord) -> None:
        if not record.skipped:
            model = unwrapped(trainer.model)
            _move(self._average_of(model), model, self.decay)

    def copy_to(self, model: nn.Module) -> None:
        """Give ``model`` the averaged weights and buffers; its own are lost."""
        model = unwrapped(model)
        averaged = self._average_of(model).module
        model.load_state_dict(averaged.state_dict())
        with torch.no_grad():  # those that no state_dict holds, too
            for mine, its in _pairs(model.named_buffers(), averaged.named_buffers()):
                mine.copy_(its)

    @contextmanager
    def applied(self, trainer: Training) -> Iterator[None]:
        """Within the block the trainer's model has the averaged weights; afterwards its own, bit for bit."""
        model = unwrapped(trainer.model)
        own = copy.deepcopy(model.state_dict())
        with buffers_kept(model):
            self.copy_to(model)
            try:
                yield
            finally:
                model.load_state_dict(own)

    def state_dict(self) -> dict[str, Any]:
        if self._averaged is not None:
            return {"averaged": self._averaged.state_dict()}
        return dict(self._loaded or {})

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._averaged, self._loaded = None, state_dict

    def _average_of(self, model: nn.Module) -> AveragedModel:
        if self._averaged is None:
            self._averaged = AveragedModel(model)
            if self._loaded is not None:
                with content_of("averaged weights"):
                    self._averaged.load_state_dict(self._loaded["averaged"])
                self._loaded = None
        return self._averaged


@torch.no_grad()
def _move(average: AveragedModel, model: nn.Module, decay: float) -> None:
    """One step of the average towards ``model``. (torch's own rounds averages of integers down.)"""
    buffers = _pairs(average.module.named_buffers(), model.named_buffers())
    pairs = _pairs(average.module.named_parameters(), model.named_parameters()) + buffers
    begun = bool(average.n_averaged > 0)
    moved = [begun and (mine.is_floating_point() or mine.is_complex()) for mine, _ in pairs]
    for (mine, its), moves in zip(pairs, moved, strict=True):
        if not moves:
            mine.copy_(its)
    if any(moved):
        chosen = [(mine, its.to(mine)) for (mine, its), moves in zip(pairs, moved, strict=True) if moves]
        torch._foreach_lerp_([mine for mine, _ in chosen], [its for _, its in chosen], 1.0 - decay)
    for mine, its in buffers:  # a mask's infinities are no numbers to average
        mine.copy_(torch.where(mine.isfinite(), mine, its))
    for held, module in zip(average.module.modules(), model.modules(), strict=True):
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            held.set_extra_state(copy.deepcopy(module.get_extra_state()))
    average.n_averaged += 1


def _pairs(first: Named, second: Named) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The tensors of two models that have a name in common."""
    others = dict(second)
    return [(tensor.detach(), others[name].detach()) for name, tensor in first if name in others]
