"""One step of a trainer: gradients, what may make it a skipped one, the optimizer, and a last look at the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from mtopt._errors import NonFiniteError
from mtopt.autograd import StepRecord
from mtopt.training._closure import needs_closure, step_by_closure
from mtopt.training._gradients import batches_of, generators_of, reevaluate
from mtopt.training._protocol import Stepping


class Hooked(Stepping, Protocol):
    """What a subclass may change in a step."""

    def make_gradients(self, batch: Any) -> StepRecord: ...

    def on_gradients(self, batch: Any, record: StepRecord) -> None: ...

    def after_step(self) -> None: ...


def take_step(trainer: Hooked, batch: Any) -> StepRecord:
    """One step; nothing changes when it is skipped."""
    optimizer, precision, rule = trainer.optimizer, trainer.precision, trainer.combiner
    optimizer.zero_grad(set_to_none=True)
    by_closure = needs_closure(optimizer)
    generators = generators_of(trainer) if rule.reevaluates or by_closure else None
    before = rule.state_dict() if by_closure else {}
    record = trainer.make_gradients(batch)
    reason = precision.finish_gradients(optimizer, trainer.processes)
    if reason is not None and not record.skipped:
        _refuse_if_strict(trainer, f"{reason}; lower the learning rate")
        record = replace(record, weights=None, skipped=True, reason=reason)
    if record.skipped:
        precision.back_off(optimizer)
        return record
    trainer.on_gradients(batch, record)
    batches: Sequence[Any] = batches_of(trainer, batch)
    if by_closure and generators is not None:
        record = step_by_closure(trainer, batches, record, generators, before)
        if record.skipped:
            _refuse_if_strict(trainer, f"{record.reason}; lower its rate")
            return record
    else:
        precision.step(optimizer)
    with torch.no_grad():
        trainer.after_step()
    if generators is not None and rule.awaits_losses:
        reevaluate(trainer, batches, generators)
    return record


def _refuse_if_strict(trainer: Hooked, what: str) -> None:
    if trainer.strict:
        raise NonFiniteError(f"{what}, or leave strict=False to skip such steps")
