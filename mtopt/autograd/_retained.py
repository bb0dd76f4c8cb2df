"""Results inside the graph that retain their gradient (``Tensor.retain_grad``), which no node of the graph knows of."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mtopt.autograd._reach import edge_of, nodes_behind


class _Search:
    """All tensors that retain their gradient and that somebody holds.

    Every object that Python knows of has to be looked at, 10 ms for 200,000 of them; but what was made since the last
    search is among the young ones for as long as the garbage collector has not run over these.
    """

    def __init__(self) -> None:
        self.collections: list[int] = []
        self.old: list[weakref.ref[torch.Tensor]] = []

    def find(self) -> list[torch.Tensor]:
        stats = gc.get_stats()[0 if sys.version_info >= (3, 14) else 1 :]  # the youngest are not moved beyond the next
        collections = [counts["collections"] for counts in stats]
        if collections == self.collections:
            candidates = [*gc.get_objects(0), *gc.get_objects(1), *[ref() for ref in self.old]]
        else:
            candidates = gc.get_objects()
        self.collections = collections
        with torch._C.DisableTorchFunctionSubclass():
            # by the type: isinstance would ask the objects themselves, and some of them answer with a warning
            kinds = _with_subclasses(torch.Tensor)
            tensors = [each for each in candidates if type(each) in kinds and each.retains_grad]
        self.old = [weakref.ref(tensor) for tensor in tensors]
        return list({id(tensor): tensor for tensor in tensors}.values())


def _with_subclasses(kind: type[Any]) -> set[type[Any]]:
    found: list[type[Any]] = type.__subclasses__(kind)
    return {kind}.union(*[_with_subclasses(each) for each in found])


_SEARCH = _Search()


def retained_behind(outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The results in the graph of ``outputs`` that retain their gradient, each once."""
    found = _SEARCH.find()
    nodes = nodes_behind(outputs) if found else set()
    return [tensor for tensor in found if edge_of(tensor)[0] in nodes]


@contextmanager
def set_aside(tensors: Sequence[torch.Tensor]) -> Iterator[None]:
    """``.grad`` of those of ``tensors`` that retain it as it was, whatever is written to it meanwhile."""
    tensors = [tensor for tensor in tensors if tensor.retains_grad]
    before = [tensor.grad for tensor in tensors]
    for tensor in tensors:
        tensor.grad = None
    try:
        yield
    finally:
        for tensor, gradient in zip(tensors, before, strict=True):
            tensor.grad = gradient


def add_retained(tensors: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor | None]) -> None:
    """Add to ``.grad`` the sums over the first dimension of ``gradients``, as backwards one by one would have done."""
    for tensor, gradient in zip(tensors, gradients, strict=True):
        if gradient is not None:
            total = gradient.sum(0)
            tensor.grad = total if tensor.grad is None else tensor.grad + total
