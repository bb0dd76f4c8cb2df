"""Optimizers whose step runs the losses itself, several times, such as LBFGS."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mtopt._losses import Losses, run_losses
from mtopt._replay import Generators, buffers_kept
from mtopt.autograd import StepRecord
from mtopt.combiners import Combiner
from mtopt.training._gradients import losses_of
from mtopt.training._kept_state import keeper
from mtopt.training._precision import Precision
from mtopt.training._protocol import Stepping


def needs_closure(optimizer: object) -> bool:
    """Whether ``step`` cannot do without a closure that computes the loss anew. Wrappers are looked into."""
    inner: Any = getattr(optimizer, "optimizer", optimizer)
    return _requires_closure(type(inner))  # type: ignore[arg-type]  # a class is hashable


@functools.cache
def _requires_closure(kind: type) -> bool:
    step = getattr(kind, "step", None)
    parameter = None if step is None else inspect.signature(step).parameters.get("closure")
    return parameter is not None and parameter.default is inspect.Parameter.empty


def check_closure(optimizer: torch.optim.Optimizer, combiner: Combiner, private: object, precision: Precision) -> None:
    """Raise for an optimizer that runs the losses itself where they are no one function in a step."""
    if not needs_closure(optimizer):
        return
    name = type(optimizer).__name__
    if combiner.needs != "losses" or not combiner.weighted:
        raise ValueError(
            f"optimizer is {name}, whose step computes the loss several times, and {combiner!r} combines gradients, "
            "which are no one function's: take a rule on losses, one of mtopt.list_combiners(needs='losses'), or "
            "another optimizer"
        )
    if private not in (None, "weighted"):
        raise ValueError(
            f"optimizer is {name}, which minimises the weighted losses, heads included; leave private={private!r} out"
        )
    if precision.scaler is not None or precision.clip_norm is not None:
        raise ValueError(
            f"optimizer is {name}, whose line needs the gradient of the loss as it is; leave clip_norm and "
            "autocast=torch.float16 out"
        )


def refuse_closure(optimizer: object, where: str) -> None:
    """Raise for such an optimizer in a loop that steps without a closure."""
    if needs_closure(optimizer):
        name = type(getattr(optimizer, "optimizer", optimizer)).__name__
        raise ValueError(
            f"optimizer is {name}, whose step needs a closure, and {where} gives none; choose another optimizer, or "
            "use mtopt.MultiLossTrainer, which does for rules on losses"
        )


def step_by_closure(
    trainer: Stepping,
    batches: Sequence[Any],
    record: StepRecord,
    generators: Generators,
    before: Mapping[str, Any],
) -> StepRecord:
    """The optimizer's step on the losses as the rule weighed them at its start, with the random numbers of then.

    Where it leads to parameters that are not finite, everything, the rule's state ``before`` too, is put back.
    """
    assert record.weights is not None
    weights, optimizer = record.weights, trainer.optimizer
    params = [param for group in optimizer.param_groups for param in group["params"]]
    restore_state, restore_params = keeper(optimizer.state), keeper(params)
    passes = 0

    def closure() -> Any:
        nonlocal passes
        optimizer.zero_grad()
        terms = []
        with generators.replayed(), buffers_kept(trainer):
            for batch in batches:
                total = weighted_sum(losses_of(trainer, batch), weights) / len(batches)
                torch.autograd.backward(total)
                terms.append(total.detach())
        trainer.features = None
        passes += len(terms)
        return torch.stack(terms).sum()

    optimizer.step(closure)
    record = replace(record, backwards=record.backwards + passes)
    if all(bool(param.isfinite().all()) for param in params):
        return record
    restore_state(), restore_params()
    trainer.combiner.load_state_dict(before)
    return replace(record, weights=None, skipped=True, reason=f"{type(optimizer).__name__} left non-finite parameters")


def weighted_sum(losses: Losses, weights: Mapping[str, float]) -> torch.Tensor:
    """The losses as they are minimised, each times its weight."""
    terms = [
        weights[objective.name] * objective.sign * value
        for _, objective, value in run_losses(losses)
        if objective.name in weights
    ]
    return torch.stack([term.reshape(()) for term in terms]).sum()
