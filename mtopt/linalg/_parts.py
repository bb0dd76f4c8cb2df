"""Gradients whose columns lie in several processes: what is a sum over columns is summed over these, in one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

Sum = Callable[[torch.Tensor], torch.Tensor]
"""From sums over the columns here to those over all columns: a small float64 tensor, the same everywhere."""

_SUM: ContextVar[Sum | None] = ContextVar("_SUM", default=None)


@contextmanager
def columns_in_parts(add: Sum | None) -> Iterator[None]:
    """While it is entered, rows hold a part of their columns; with None they are whole."""
    token = _SUM.set(add)
    try:
        yield
    finally:
        _SUM.reset(token)


def sum_parts(table: torch.Tensor) -> torch.Tensor:
    """Sums over all columns, from those over the columns at hand: ``table`` itself, where these are all.

    A rule on coordinates that declares ``shardable`` passes each sum over columns of its own through this;
    ``gramian_of`` has done so.
    """
    add = _SUM.get()
    return table if add is None else add(table)
