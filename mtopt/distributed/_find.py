"""Which processes a step runs in: read from what is trained and from torch.distributed alone."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from mtopt.distributed._processes import ALONE, Processes
from mtopt.distributed._ranks import Ranks


def processes_of(params: Any = None) -> Processes:
    """The processes that train replicas of ``params``: those of a DDP module's group, else all there are."""
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
    return ALONE if distributed.get_world_size(group) == 1 else Ranks(group)


def unwrapped(params: Any) -> Any:
    """``params`` itself, or the module that DistributedDataParallel wraps."""
    return params.module if isinstance(params, DistributedDataParallel) else params
