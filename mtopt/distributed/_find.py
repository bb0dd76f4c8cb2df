"""Which processes a step runs in: read from what is trained and from torch.distributed alone."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Module
from torch.nn.parallel import DistributedDataParallel

from mtopt.distributed._processes import ALONE, Processes
from mtopt.distributed._ranks import Ranks
from mtopt.distributed._sharded import find_shard, is_sharded


def processes_of(params: Any = None) -> Processes:
    """The processes that train replicas or shards of ``params``: a DDP module's group, a mesh's, else all there are."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return ALONE
    group = None
    if isinstance(params, DistributedDataParallel):
        group = params.process_group
        if params.static_graph:
            warnings.warn(
                "the model is DistributedDataParallel(static_graph=True), whose reducer learns from its first backward "
                "and does not see those of mtopt: a loss.backward() of yours beside them may not be averaged over the "
                "ranks; leave static_graph out if there is one",
                stacklevel=4,
            )
    mesh = _mesh_of(params)
    if mesh is not None and mesh.size() < distributed.get_world_size():
        if mesh.ndim > 1:
            raise ValueError(
                f"params are sharded on a mesh of {mesh.size()} ranks in {mesh.ndim} dimensions, and "
                f"{distributed.get_world_size()} run; shard on all of them, or in one dimension"
            )
        group = mesh.get_group()
    # one rank of a mesh has shards, too, which are whole
    return ALONE if mesh is None and distributed.get_world_size(group) == 1 else Ranks(group)


def _mesh_of(params: Any) -> Any:
    """That of the first parameter that is a DTensor; None where none is, or where looking would use ``params`` up."""
    if isinstance(params, Module):
        params = params.parameters()
    elif not isinstance(params, Sequence):
        return None
    entries = [entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry for entry in params]
    if not is_sharded(entries):
        return None
    found = [getattr(find_shard(entry), "device_mesh", None) for entry in entries]
    return next((mesh for mesh in found if mesh is not None), None)


def unwrapped(params: Any) -> Any:
    """``params`` itself, or the module that DistributedDataParallel wraps."""
    return params.module if isinstance(params, DistributedDataParallel) else params
