"""A diagnosis of the losses of one step of a trainer, which trains on as if nothing had been looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mtopt._errors import NonFiniteError
from mtopt._losses import NoLossError
from mtopt._replay import second_look
from mtopt.autograd import StepRecord, trainable
from mtopt.combiners import Combiner
from mtopt.diagnosis import Diagnosis, NothingToCompareError, Watch, differentiate, examine
from mtopt.distributed import unwrapped
from mtopt.training._gradients import generators_of, losses_of
from mtopt.training._protocol import LossSource, Stepping

_LEAST = 1e-3  # a preference below that asks for a loss to starve


def measure(trainer: Stepping, batches: Sequence[Any]) -> Diagnosis | None:
    """What the gradients of the step's batches are like; None where they are not finite, or no two losses are there."""
    names = {id(parameter): name for name, parameter in unwrapped(trainer.model).named_parameters()}
    trained = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    places = trainable([(names.get(id(p), f"extra_{index}"), p) for index, p in enumerate(trained)])
    scaler = trainer.precision.scaler
    scale = 1.0 if scaler is None else float(scaler.get_scale())
    try:
        with second_look(trainer, generators=generators_of(trainer), needs_graph=True):
            draws = [
                differentiate(losses_of(trainer, batch), places, keep_graph=False, scale=scale) for batch in batches
            ]
            return examine(draws, places, None)
    except (NonFiniteError, NoLossError, NothingToCompareError):
        return None
    finally:
        trainer.features = None  # it would keep activations alive


def with_measured(record: StepRecord, found: Diagnosis | None) -> StepRecord:
    """The record with the norms and cosines that were measured, where its rule needed none."""
    if found is None or record.skipped:
        return record
    if record.norms is None:
        return replace(record, norms=dict(found.norms), cosines=found.cosines)
    return (
        replace(record, cosines=found.cosines)
        if record.cosines is None and [*record.norms] == [*found.names]
        else record
    )


def watch_over(trainer: LossSource) -> Watch:
    """The watch over a trainer's steps; no share is reported of losses that its rule or preference treats unequally."""
    rule = trainer.combiner
    while isinstance(inner := getattr(rule, "rule", None), Combiner):
        rule = inner
    preference = getattr(rule, "preference", None)
    asked = preference is not None and min(float(share) for share in preference) < _LEAST
    dtype = next(trainer.model.parameters()).dtype
    return Watch(shares=trainer.combiner.symmetric and not asked, dtype=dtype)
