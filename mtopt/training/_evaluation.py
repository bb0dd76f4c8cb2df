"""Averages over held-out data that leave no trace: not in the model's mode, not in any generator."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from mtopt._replay import graph_where_needed
from mtopt.distributed import Processes
from mtopt.training._random import (
    generator_state,
    generators_in,
    global_state,
    set_generator_state,
    set_global_state,
)


def averages(
    metrics: Callable[[Any], Mapping[str, float]],
    data: Iterable[Any] | None,
    size: Callable[[Any], int],
    processes: Processes,
    *,
    in_step: bool = False,
) -> dict[str, float]:
    """The averages of ``metrics`` over the batches of ``data`` on all ranks, each weighted by its size.

    A metric that some batches lack is averaged over the others. A rank may have no batch, if another has.

    Args:
        in_step: no rank may run the model alone: one that has no batch left runs its last one, which counts once.

    Raises:
        ValueError: there is no batch; or ``in_step``, and there is none on one rank.
    """
    found: dict[str, tuple[float, int]] = {}
    batches: Iterable[Any] = (None,) if data is None else data
    for batch, counts in _in_step(batches, processes) if in_step else ((batch, True) for batch in batches):
        count, values = size(batch), metrics(batch)
        if not counts:
            continue
        for name, value in values.items():
            number = float(value.detach() if isinstance(value, torch.Tensor) else value)
            total, size_so_far = found.get(name, (0.0, 0))
            found[name] = total + number * count, size_so_far + count
    of_all = processes.gather(found)
    if not any(of_all):
        raise ValueError("data gave nothing to evaluate: it is empty, or an iterator that is used up; give a list, say")
    sums: dict[str, tuple[float, int]] = {}
    for name, (total, count) in ((name, one) for each in of_all for name, one in each.items()):
        before, counted = sums.get(name, (0.0, 0))
        sums[name] = before + total, counted + count
    return {name: total / count for name, (total, count) in sums.items()}


def _in_step(data: Iterable[Any], processes: Processes) -> Iterator[tuple[Any, bool]]:
    """As many batches on all ranks, and whether each counts."""
    batches = iter(data)
    last: list[Any] = []
    while True:
        drawn = list(itertools.islice(batches, 1))
        last = drawn or last
        have, lack = processes.count([bool(drawn), not last])
        if not have:
            return
        if lack:
            raise ValueError(
                f"data has no batch on {lack} of {processes.size} ranks, and a sharded model is run by all of them "
                "together; give each rank one at least, or all the same data"
            )
        yield last[0], bool(drawn)


def count_examples(batch: Any) -> int:
    """The first dimension of the first tensor in a batch; 1 where there is none."""
    tensor = _first_tensor(batch)
    return 1 if tensor is None or tensor.ndim == 0 else len(tensor)


def _first_tensor(batch: Any) -> torch.Tensor | None:
    if isinstance(batch, torch.Tensor):
        return batch
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((tensor for tensor in map(_first_tensor, parts) if tensor is not None), None)


@contextmanager
def evaluation_mode(model: torch.nn.Module, *, needs_graph: bool = False) -> Iterator[None]:
    """Every module in eval mode, and no graph but where it is needed; afterwards each is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with graph_where_needed(needs_graph, "the trainer"):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def generators_kept(data: object) -> Iterator[None]:
    """Afterwards the global generators, and those that ``data`` holds, are where they were."""
    state = global_state()
    held = [(generator, generator_state(generator)) for generator in generators_in(data).values()]
    try:
        yield
    finally:
        set_global_state(state)
        for generator, kept in held:
            set_generator_state(generator, kept)
