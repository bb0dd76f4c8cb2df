"""What a step does, counted: multiplications, operations and bytes, which no load of the machine moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed.models import Shared, dense


@dataclass(frozen=True)
class Counts:
    """Of one step.

    Attributes:
        flops: of matrix products, forward and backward.
        operations: that reach the device, views apart: what a step of a tiny model costs.
        moved: bytes that these read and write.
    """

    flops: int
    operations: int
    moved: int


class _Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = self.moved = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.operations += 1
            tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
            self.moved += sum(x.numel() * x.element_size() for x in tensors)
        return result


def counted(make: Callable[[Shared], Callable[[], None]], tasks: int, *, before: int = 1) -> Counts:
    """The step after ``before`` others on a model of its own: what is set up at the first is not counted."""
    counts = []
    for mode in (FlopCounterMode(display=False), _Operations()):
        step = make(model_of(tasks))
        for _ in range(before):
            step()
        with mode:
            step()
        counts.append(mode)
    flops, operations = counts
    return Counts(flops.get_total_flops(), operations.operations, operations.moved)


def model_of(tasks: int) -> Shared:
    """A trunk of 115,328 parameters with linear heads, the same in every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Shared(dense((64, 256, 256, 128)), 128, tasks, (32, 64))
