"""Sharded parameters between steps: what a forward has gathered is freed, and states are made whole and cut again."""

from __future__ import annotations

import copy
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.nn import Module

from mtopt.distributed._processes import Processes
from mtopt.distributed._sharded import holder_of, is_sharded, may_hold
from mtopt.distributed._shards import cut_as


def reshard(model: Module) -> None:
    """Free what a forward without a backward has left gathered: the next one would find the parameters of before."""
    if not may_hold():
        return
    kind = sys.modules["torch.distributed.fsdp"].FSDPModule
    for module in model.modules():
        if isinstance(module, kind):
            module.reshard()


def release(params: Iterable[torch.Tensor]) -> None:
    """The same for parameters, whichever modules they are of."""
    if not may_hold():
        return
    groups: list[Any] = [None if (holder := holder_of(param)) is None else holder.group() for param in params]
    for group in {id(group): group for group in groups if group is not None}.values():
        if group.is_unsharded:
            group.reshard()


def make_whole(state: Any, processes: Processes) -> Any:
    """``state`` with whole tensors in the place of shards, on the CPU of the first process; on others without them.

    All processes call it with the same shards, and hold one whole tensor at a time.
    """
    shards = [tensor for tensor in _tensors_in(state) if is_sharded([tensor])] if may_hold() else []
    if not shards:
        return state
    processes.note("the shapes of the sharded tensors they save", [tuple(shard.shape) for shard in shards])
    processes.meet()

    def gather(tensor: torch.Tensor) -> torch.Tensor:
        if not hasattr(tensor, "full_tensor"):
            return tensor
        whole: torch.Tensor = tensor.detach().full_tensor()  # type: ignore[attr-defined]
        return whole.cpu() if processes.rank == 0 else whole.new_empty(0)

    return _changed(state, gather)


def cut_like(state: Mapping[str, Any], present: Mapping[str, Any]) -> Any:
    """``state`` with shards of its whole tensors where ``present`` has shards under the same names."""
    found: Any = copy.copy(state)  # which may know the versions of its layers
    for name, value in state.items():
        like: Any = present.get(name)
        if hasattr(like, "placements") and not hasattr(value, "placements"):
            found[name] = cut_as(like, value)
    return found


def load_whole(model: Module, state: Mapping[str, Any]) -> None:
    """Have a model, whose parameters may be sharded, load a state of whole tensors, or one of its own."""
    reshard(model)
    model.load_state_dict(cut_like(state, model.state_dict()))


def digest_of(state: Any) -> int:
    """A number that tells the tensors of a state apart, as they lie here."""
    found = 0
    for tensor in _tensors_in(state):
        found = zlib.crc32(str((tuple(tensor.shape), tensor.dtype)).encode(), found)
        numbers = tensor.detach().cpu().contiguous().reshape(-1)
        found = zlib.crc32(numbers.view(torch.uint8).numpy().tobytes(), found)
    return found


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for entry in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(entry)


def _changed(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        rebuilt = copy.copy(value)
        for key, entry in value.items():
            rebuilt[key] = _changed(entry, change)
        return rebuilt
    if type(value) in (list, tuple):
        return type(value)(_changed(entry, change) for entry in value)
    return value
