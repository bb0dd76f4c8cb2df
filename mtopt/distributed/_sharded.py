"""Parameters that ``fully_shard`` holds: refused, since what is written to them is lost."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable

import torch


def refuse_sharded(params: Iterable[torch.Tensor]) -> None:
    """Raise where a parameter is a shard, or the whole one that ``fully_shard`` puts in its place for a forward.

    Autograd differentiates the whole one, the optimizer steps the shard, and torch moves gradients from one to the
    other only in a backward of its own.
    """
    tensors = sys.modules.get("torch.distributed.tensor")
    if tensors is None:  # then nobody has made one
        return
    params = list(params)
    shards = [param for param in params if isinstance(param, tensors.DTensor)]
    if shards or not _whole_ones().isdisjoint(map(id, params)):
        raise ValueError(
            "params holds parameters that are sharded (DTensor, or what fully_shard puts in its place for a forward), "
            "which mtopt cannot train yet: gradients would not reach what the optimizer steps. Leave "
            "torch.distributed.fsdp.fully_shard out and train in one process"
        )


def _whole_ones() -> set[int]:
    """The ids of the parameters that ``fully_shard``'s modules hold now: nothing but their modules tells them apart."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    # each module that is sharded gets a class of its own, which outlives it; none works without a process group
    if kind is None or not torch.distributed.is_initialized() or not kind.__subclasses__():
        return set()
    # what refers to such a class is its modules, and little else; by the type, since isinstance would ask the objects
    modules = [each for each in gc.get_referrers(*kind.__subclasses__()) if issubclass(type(each), kind)]
    return {id(param) for module in modules for param in module.parameters()}
