"""What may go wrong on one rank alone, and what it must come to on all: told by what each rank found afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import mtopt
from tests.distributed.models import (
    Shared,
    batch_of,
    gradient_of,
    losses_of,
    place,
    step_on_callables,
    step_on_draws,
    step_on_tensors,
    weights_of,
    wrapped,
)
from tests.distributed.spawned import Caught

TASKS = 3


class Broken(RuntimeError):
    """What a part of the model raises."""


class _BreaksBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise Broken("out of luck")


class _SpoilsGradient(_BreaksBackward):
    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.nan


class _Raises(mtopt.GramianCombiner):
    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        if place()[0] == 1:
            raise Broken("no weights")
        return torch.ones(len(gramian))


def at_second() -> bool:
    return place()[0] == 1


def _named(change: Callable[[list[Any]], Mapping[str, Any] | list[Any]], rule: str = "moco", **options: Any) -> Any:
    """A step whose losses are changed by ``change`` on the second rank."""

    def run(model: nn.Module, combiner: mtopt.Combiner) -> mtopt.StepRecord:
        found = losses_of(model, *batch_of(1, TASKS))
        losses: Any = change(list(found.values())) if at_second() else list(found.values())
        if not isinstance(losses, dict):
            losses = dict(zip(found, losses, strict=False))
        return mtopt.backward(losses, model, combiner, **options)

    return rule, run


def _callables(broken: Callable[[], Any], rule: str = "moco") -> Any:
    def run(model: nn.Module, combiner: mtopt.Combiner) -> mtopt.StepRecord:
        def one(k: int) -> Callable[[], Any]:
            if k == 1 and at_second():
                return broken
            return lambda: list(losses_of(model, *batch_of(1, TASKS)).values())[k]

        return mtopt.backward([one(k) for k in range(TASKS)], model, combiner)

    return rule, run


def _raise() -> Any:
    raise Broken("no such file")


def _infinite_grad(model: nn.Module, combiner: mtopt.Combiner) -> mtopt.StepRecord:
    if at_second():
        param = next(model.parameters())
        param.grad = torch.full_like(param, torch.inf)
    try:
        return step_on_tensors(model, combiner, 1, TASKS)
    finally:
        model.zero_grad()


def _scaled(model: nn.Module, combiner: mtopt.Combiner) -> mtopt.StepRecord:
    """A skip that a scaler must see, on a rank whose part has nothing wrong."""
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses: dict[Any, Any] = losses_of(model, *batch_of(1, TASKS))
    if at_second():  # what is left reaches no parameter of the others' heads
        losses = {name: loss * torch.inf if name.name == "task_2" else None for name, loss in losses.items()}
    record = mtopt.backward(losses, model, combiner, scaler=scaler)
    before = weights_of(model)
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(before, weights_of(model))
    assert scaler.get_scale() == 4.0
    model.zero_grad()
    return record


def _one_without_features(model: nn.Module, combiner: mtopt.Combiner) -> mtopt.StepRecord:
    return step_on_tensors(model, combiner, 1, TASKS, with_features=not at_second())


def _sparse(model: nn.Module, combiner: mtopt.Combiner) -> mtopt.StepRecord:
    table = nn.Embedding(4, 2, sparse=True).double()
    rows = table(torch.arange(3))
    return mtopt.backward([rows.sum(), rows.square().sum()], table, combiner)


def _per_instance(model: nn.Module, combiner: mtopt.Combiner) -> mtopt.StepRecord:
    inner = Shared(1)
    with mtopt.per_instance(inner) as instances:
        losses = inner(batch_of(1, 1)[0])[0].square()
    return instances.backward(losses, combiner)


def _in_the_accumulator(model: nn.Module, combiner: mtopt.Combiner) -> mtopt.StepRecord:
    sums = mtopt.JacobianAccumulator(model, TASKS)
    for k, loss in enumerate(losses_of(model, *batch_of(1, TASKS)).values()):
        sums.add(k, _raise if at_second() and k == 1 else loss, retain_graph=True)
    return sums.combine(combiner)


def _other_kind(model: nn.Module, combiner: mtopt.Combiner) -> mtopt.StepRecord:
    return (step_on_callables if at_second() else step_on_draws)(model, mtopt.create_combiner("modo"), 1, TASKS)


def nan(losses: list[torch.Tensor]) -> list[Any]:
    return [losses[0], losses[1] * torch.nan, losses[2]]


TROUBLES: dict[str, tuple[str, Callable[[nn.Module, mtopt.Combiner], mtopt.StepRecord]]] = {
    "nan_loss": _named(nan),
    "nan_loss_of_a_rule_on_losses": _named(nan, "famo"),
    "nan_loss_strict": _named(nan, strict=True),
    "nan_gradient": _named(lambda losses: [losses[0], _SpoilsGradient.apply(losses[1]), losses[2]]),
    "nan_gradient_streamed": _named(
        lambda losses: [losses[0], _SpoilsGradient.apply(losses[1]), losses[2]], "ngdiff", store="recompute"
    ),
    "nan_gradient_of_a_rule_on_losses": _named(
        lambda losses: [losses[0], _SpoilsGradient.apply(losses[1]), losses[2]], "uw"
    ),
    "infinite_grad": ("db_mtl", _infinite_grad),
    "scaler": ("moco", _scaled),
    "scaler_of_a_rule_on_losses": ("uw", _scaled),
    "other_names": _named(lambda losses: dict(zip("abc", losses, strict=True))),
    "fewer_losses": _named(lambda losses: losses[:2]),
    "other_options": ("mgda", _one_without_features),
    "other_kind": ("mgda", _other_kind),
    "no_graph": _named(lambda losses: [losses[0], torch.ones(()), losses[2]]),
    "raises_in_a_loss": _callables(_raise),
    "raises_in_the_accumulator": ("moco", _in_the_accumulator),
    "raises_in_a_backward": _named(lambda losses: [losses[0], _BreaksBackward.apply(losses[1]), losses[2]]),
    "raises_in_a_weighted_backward": _named(
        lambda losses: [losses[0], _BreaksBackward.apply(losses[1]), losses[2]], "dwa"
    ),
    "raises_in_the_rule": ("raises", lambda model, _: step_on_tensors(model, _Raises(), 1, TASKS)),
    "sparse": ("linear", _sparse),
    "per_instance": ("mgda", _per_instance),
}


def run_trouble(name: str) -> dict[str, Any]:
    """The step after one without trouble: what it came to, how long it took, and what changed; then one more step."""
    rule, trouble = TROUBLES[name]
    combiner = mtopt.create_combiner("moco" if rule == "raises" else rule)
    model = wrapped(Shared(TASKS), "ddp")
    step_on_tensors(model, combiner, 0, TASKS)
    model.zero_grad()
    state = repr(combiner.state_dict())
    started = time.monotonic()
    outcome: tuple[str, str | None, tuple[str, ...]] = "", "", ()
    with Caught() as caught:
        record = trouble(model, combiner)
        outcome = "skipped" if record.skipped else "went well", record.reason, tuple(record.losses)
    if caught.raised is not None:
        outcome = caught.raised.kind, caught.raised.text, ()
    seconds = time.monotonic() - started
    changed = state != repr(combiner.state_dict()) or bool(gradient_of(model).any())
    step_on_tensors(model, combiner, 2, TASKS)
    return {"outcome": outcome, "seconds": seconds, "changed": changed, "after": gradient_of(model)}


_SKIPPED_LOSS = "skipped", "^non-finite loss: task_1;", ""
_SKIPPED_GRADIENT = "skipped", "^non-finite gradient: task_1$", ""

OUTCOMES: dict[str, tuple[str, str, str]] = {
    "nan_loss": _SKIPPED_LOSS,
    "nan_loss_of_a_rule_on_losses": _SKIPPED_LOSS,
    "nan_loss_strict": ("NonFiniteError", "^non-finite loss: task_1;", ""),
    "nan_gradient": _SKIPPED_GRADIENT,
    "nan_gradient_streamed": _SKIPPED_GRADIENT,
    "nan_gradient_of_a_rule_on_losses": ("skipped", "^non-finite gradient of the weighted losses$", ""),
    "infinite_grad": ("skipped", "^on rank 1: non-finite sum of the direction", ""),
    "scaler": ("skipped", "^non-finite loss: task_2", ""),
    "scaler_of_a_rule_on_losses": ("skipped", "^non-finite loss: task_2", ""),
    "other_names": ("RankError", r"agree in the losses, found .*task_1.* on rank 0, .*'b'.* on rank 1", ""),
    "fewer_losses": (
        "RankError",
        r"agree in the losses, found .*task_2.* on rank 0, .*task_1', 'min'\)\] on rank 1",
        "",
    ),
    "other_options": ("RankError", r"agree in the arguments of mtopt\.backward", ""),
    "other_kind": ("TypeError", r"MoDo\(\) takes 3", "rank 1 raised TypeError: MoDo"),
    "no_graph": ("ValueError", "'task_1' has no graph", "rank 1 raised ValueError: loss 'task_1' has no graph"),
    "raises_in_a_loss": ("Broken", "no such file", "rank 1 raised Broken: no such file"),
    "raises_in_the_accumulator": ("Broken", "no such file", "rank 1 raised Broken: no such file"),
    "raises_in_a_backward": ("Broken", "out of luck", "rank 1 raised Broken: out of luck"),
    "raises_in_a_weighted_backward": ("Broken", "out of luck", "rank 1 raised Broken: out of luck"),
    "raises_in_the_rule": ("Broken", "no weights", "rank 1 raised Broken: no weights"),
    "sparse": ("TypeError", "build the embedding with sparse=False", ""),
    "per_instance": ("RuntimeError", r"mtopt\.per_instance, .* and \d run", ""),
}
"""What each comes to on the second rank, what that says, and what the others say where it is not the same."""
