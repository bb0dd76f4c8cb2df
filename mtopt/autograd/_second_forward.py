"""Running the losses a second time: with the same random numbers, and leaving no trace in the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mtopt.autograd._buffers import buffers_kept
from mtopt.autograd._generators import Generators
from mtopt.autograd._objective import Losses, read_losses, value_of


@contextmanager
def second_look(
    *owners: object, generators: Generators, needs_graph: bool, told: str = "the trainer"
) -> Iterator[None]:
    """Within, losses are run once more with the random numbers of ``generators``; afterwards the generators and the
    owners' buffers are as they were before. Without a graph, unless the losses need one."""
    with generators.replayed(), buffers_kept(*owners), graph_where_needed(needs_graph, told):
        yield


@contextmanager
def graph_where_needed(needs_graph: bool, told: str) -> Iterator[None]:
    """No graph, unless the losses differentiate inside; where that was not ``told``, the error says whom to tell."""
    with torch.set_grad_enabled(needs_graph):
        try:
            yield
        except RuntimeError as error:
            if needs_graph or "does not require grad" not in str(error):
                raise
            raise RuntimeError(
                f"the losses differentiate inside, and were run without a graph: give needs_graph=True to {told}, or "
                f"open torch.enable_grad() around that part of them ({str(error).splitlines()[0]})"
            ) from error


def run(losses: Any) -> Losses:
    """The losses of a callable that returns them all, or of a collection of callables."""
    if callable(losses):
        found: Losses = losses()
        return found
    objectives, values = read_losses(losses)
    for objective, value in zip(objectives, values, strict=True):
        if isinstance(value, torch.Tensor):
            raise TypeError(
                f"plan='matrix_free' runs the losses twice, and loss {objective.name!r} is a tensor; give a callable "
                "that computes them all, such as lambda: losses(batch)"
            )
    return {objective: value_of(value) for objective, value in zip(objectives, values, strict=True)}


def forward_with(model: nn.Module, losses: Any, replaced: Mapping[int, torch.Tensor], generators: Generators) -> Losses:
    """The losses with some of the model's parameters, by their ids, replaced; the model and all generators stay."""
    with _exchanged(model, replaced), generators.replayed():
        return run(losses)


@contextmanager
def _exchanged(model: nn.Module, replaced: Mapping[int, torch.Tensor]) -> Iterator[None]:
    """Other parameters, wherever in the model they are, and copies of the buffers, which a forward may write to."""
    held: list[tuple[dict[str, Any], dict[str, Any]]] = []
    copies: dict[int, torch.Tensor] = {}
    try:
        for module in model.modules():
            params, buffers = module._parameters, module._buffers
            if params:
                held.append((params, dict(params)))
                params.update({name: replaced[id(p)] for name, p in params.items() if id(p) in replaced})  # type: ignore[misc]
            if buffers:
                held.append((buffers, dict(buffers)))
                for name, buffer in held[-1][1].items():
                    if buffer is not None:
                        if id(buffer) not in copies:
                            copies[id(buffer)] = buffer.clone()
                        buffers[name] = copies[id(buffer)]
        yield
    finally:
        for entries, before in held:
            entries.clear()
            entries.update(before)
