"""Steps of ranks that do not have the same: a loss, a label or a branch is absent from one of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import mtopt
from tests.distributed.models import Shared, gradient_of, place, rule_of, weights_of, wrapped

TASKS = 3
NAMES = [f"task_{k}" for k in range(TASKS)]

Part = list[torch.Tensor | None]


def _part(model: nn.Module, step: int, case: str, rank: int, count: int = 5) -> Part:
    """The losses of one rank."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    inputs = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    targets = torch.randn(count, TASKS, generator=generator, dtype=torch.float64)
    outputs = model(inputs)
    losses: Part = [(k + 1) * (output - targets[:, k]).square().mean() for k, output in enumerate(outputs)]
    second = rank == 1
    if (case == "absent" and second) or (case == "absent_everywhere") or (case == "absent_first" and rank == 0):
        losses[1] = None
    if case == "nan" and second:
        losses[1] = losses[1] * torch.nan  # type: ignore[operator]
    if case == "all_absent" and second:
        losses = [None] * TASKS
    if case == "branch" and second:  # past the layer that the same loss takes on other ranks, and past its head
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        losses[1] = inner.features(inputs).square().mean()
    return losses


def _whole(model: nn.Module, step: int, case: str, size: int, rule: mtopt.Combiner) -> dict[str, torch.Tensor | None]:
    """The means over the ranks that have a loss, on one process."""
    parts, seen = [], []
    for rank in range(size):
        parts.append(_part(model, step, "absent" if case == "nan" else case, rank))
        seen.append(model.seen)
    model.seen = seen
    found = {}
    for k, name in enumerate(NAMES):
        have = [part[k] for part in parts if part[k] is not None]
        found[name] = torch.stack(have).mean() if have else None  # type: ignore[arg-type]
    return found


def _given(model: nn.Module, step: int, case: str, size: int, rule: mtopt.Combiner) -> dict[str, torch.Tensor | None]:
    return dict(zip(NAMES, _part(model, step, case, place()[0]), strict=True))


def _on_tensors(losses: Callable[[], Any], model: nn.Module, rule: mtopt.Combiner, options: dict[str, Any]) -> Any:
    found = losses()
    if options.pop("with_features", False):
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        options["features"] = inner.seen
    return mtopt.backward(found, model, rule, **options)


def _on_callables(losses: Callable[[], Any], model: nn.Module, rule: mtopt.Combiner, options: dict[str, Any]) -> Any:
    now = losses()
    given = {name: None if now[name] is None else partial(lambda name: losses()[name], name) for name in NAMES}
    return mtopt.backward(given, model, rule, **options)


def _by_callable(losses: Callable[[], Any], model: nn.Module, rule: mtopt.Combiner, options: dict[str, Any]) -> Any:
    return mtopt.backward(losses, model, rule, **options)


def _accumulated(losses: Callable[[], Any], model: nn.Module, rule: mtopt.Combiner, options: dict[str, Any]) -> Any:
    sums = mtopt.JacobianAccumulator(model, NAMES)
    for name, loss in losses().items():
        sums.add(name, loss, retain_graph=True)
    return sums.combine(rule)


WAYS: dict[str, tuple[str, Callable[..., Any], dict[str, Any]]] = {
    "loop": ("mgda", _on_tensors, {}),
    "batched": ("pcgrad", _on_tensors, {"plan": "batched"}),
    "features_first": ("mgda", _on_tensors, {"with_features": True}),
    "representation": ("mgda", _on_tensors, {"plan": "features", "with_features": True}),
    "streamed": ("ngdiff", _on_tensors, {"store": "recompute"}),
    "blockwise": ("mgda", _on_tensors, {"store": "recompute"}),
    "kept_weights": ("every", _on_tensors, {}),
    "loss_values": ("stch", _on_tensors, {}),
    "weighted": ("mgda", _on_tensors, {"private": "weighted"}),
    "callables": ("mgda", _on_callables, {}),
    "callables_of_losses": ("stch", _on_callables, {}),
    "matrix_free": ("mgda", _by_callable, {"plan": "matrix_free"}),
    "displaced": ("mgda", _by_callable, {"plan": mtopt.MatrixFree(product="displacement")}),
    "two_points": ("moco_plus", _by_callable, {}),
    "accumulated": ("mgda", _accumulated, {}),
}

CASES = ("absent", "absent_first", "absent_everywhere", "all_absent", "nan", "branch")
"""What is not as on the other ranks."""


def run_uneven(way: str, case: str, size: int) -> dict[str, Any]:
    """Three steps on the ranks, or on one process with the losses of so many of them."""
    name, take, options = WAYS[way]
    rule, model = rule_of(name), wrapped(Shared(TASKS), "ddp")
    make = _given if distributed.is_initialized() else _whole
    directions, records = [], []
    for step in range(3):
        model.zero_grad()
        given = dict(options)
        if case == "nan" and make is _given:
            given["absent"] = "nan"
        record = take(partial(make, model, step, case, size, rule), model, rule, given)
        directions.append(gradient_of(model))
        records.append((record.losses, record.weights, record.skipped, record.reason))
        with torch.no_grad():
            for param in model.parameters():
                if param.grad is not None:
                    param -= 0.02 * param.grad
    return {"directions": torch.stack(directions), "records": records, "end": weights_of(model)}


def run_plain_after() -> dict[str, Any]:
    """A step of the user's own under DDP after one of a rule: it is averaged over the ranks as ever."""
    model = wrapped(Shared(TASKS), "ddp")
    rule = mtopt.create_combiner("mgda")
    for step in range(2):
        mtopt.backward(dict(zip(NAMES, _part(model, step, "", place()[0]), strict=True)), model, rule)
        model.zero_grad()
        torch.stack(_part(model, step, "", place()[0])).sum().backward()  # type: ignore[arg-type]
    found = gradient_of(model)
    bare = Shared(TASKS)
    size = place()[1]
    sums = [torch.stack(_part(bare, 1, "", rank)).sum() for rank in range(size)]  # type: ignore[arg-type]
    torch.stack(sums).mean().backward()
    return {"found": found, "expected": gradient_of(bare)}
