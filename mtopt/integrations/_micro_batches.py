"""One step of the optimizer on one or several micro-batches: the raw gradients are summed, the rule is applied once."""

from __future__ import annotations

from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch

from mtopt._losses import Losses, LossValue, Objective, check_loss, read_losses, run_loss
from mtopt.autograd import JacobianAccumulator, Private, StepRecord, backward, check_rule
from mtopt.combiners import Combiner
from mtopt.integrations._records import total_of


class MicroBatches:
    """The micro-batches of one step, as far as they have come.

    Attributes:
        total: the sum of what is minimised in the last that came, without its share; of several ranks, the mean over
            them once the step is one micro-batch, else that of this one.
    """

    def __init__(self) -> None:
        self._sums: JacobianAccumulator | None = None
        self.total = 0.0

    @property
    def pending(self) -> bool:
        """Some have come, and the last has not."""
        return self._sums is not None

    def clear(self) -> None:
        """Forget a step that was broken off."""
        self._sums = None

    def add(
        self,
        losses: Losses,
        model: torch.nn.Module,
        combiner: Combiner,
        *,
        last: bool,
        share: float = 1.0,
        scaler: Any = None,
        private: Private | None = None,
        strict: bool = False,
    ) -> StepRecord | None:
        """Take one micro-batch; with the last, apply the rule and fill ``.grad``.

        A step of a single whole batch is :func:`mtopt.backward` itself.

        Args:
            losses, combiner, scaler, private, strict: as :func:`mtopt.backward` takes them.
            model: its trainable parameters get the direction.
            last: this micro-batch completes the step.
            share: factor on its losses: 1/n for the mean over n micro-batches.

        Returns:
            The record of the step; None before the last micro-batch.

        Raises:
            ValueError: other objectives than in the micro-batch before, or a rule on several draws.
        """
        check_rule(combiner, private)
        if last and share == 1.0 and not self.pending:
            record = backward(losses, model, combiner, scaler=scaler, private=private, strict=strict)
            self.total = total_of(record, losses)
            return record
        if combiner.draws > 1:
            raise ValueError(
                f"{combiner!r} takes {combiner.draws} independent mini-batches per step, and accumulation makes one of "
                "several; set the accumulation steps to 1"
            )
        objectives, given = read_losses(losses)
        if self._sums is None:
            self._sums = JacobianAccumulator(model, objectives, scaler=scaler)
        elif self._sums.objectives != objectives:
            raise ValueError(
                "the micro-batches of a step must have the same objectives, found "
                f"{[o.name for o in objectives]} after {[o.name for o in self._sums.objectives]}; "
                "give None for a loss that one of them lacks"
            )
        present = [k for k, loss in enumerate(given) if loss is not None]
        values: list[torch.Tensor] = []
        for k in present:
            shared_graph = isinstance(given[k], torch.Tensor) and k != present[-1]
            shared = partial(_noted, objectives[k], given[k], share, values)
            self._sums.add(k, shared, retain_graph=shared_graph)
        self.total = float(torch.stack(values).sum())
        if not last:
            return None
        try:
            return self._sums.combine(combiner, private=private, strict=strict)
        finally:
            self.clear()


_OF_MODEL: WeakKeyDictionary[torch.nn.Module, MicroBatches] = WeakKeyDictionary()


def micro_batches_of(model: torch.nn.Module) -> MicroBatches:
    """Those of a loop that keeps nothing between calls: they belong to the model, as ``.grad`` does, and go with it."""
    return _OF_MODEL.setdefault(model, MicroBatches())


def _noted(objective: Objective, loss: LossValue, factor: float, values: list[torch.Tensor]) -> torch.Tensor:
    """``factor`` times the loss, whose own value, as it is minimised, goes into ``values``."""
    value = check_loss(objective.name, run_loss(loss))
    values.append(objective.sign * value.detach().double().reshape(()))
    return value if factor == 1.0 else value * factor
