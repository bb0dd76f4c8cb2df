"""A training on several ranks: they start alike, take buffers from the first, and exchange nothing in a forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mtopt.distributed import Processes, is_sharded, processes_of, reshard, unwrapped
from mtopt.training._closure import needs_closure
from mtopt.training._precision import Precision


class Replicated(Protocol):
    """What the ranks of a training must have alike when it starts."""

    step: int
    epoch: int

    @property
    def model(self) -> nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def processes(self) -> Processes: ...

    @property
    def precision(self) -> Precision: ...

    @property
    def shares_buffers(self) -> bool: ...


def processes_training(model: nn.Module) -> Processes:
    """All processes there are, each of which trains a replica of ``model``.

    Raises:
        ValueError: DistributedDataParallel was given only some of them.
    """
    found = processes_of()
    if found.several and isinstance(model, DistributedDataParallel):
        size = torch.distributed.get_world_size(model.process_group)
        if size != found.size:
            raise ValueError(
                f"model is DistributedDataParallel over {size} of {found.size} ranks, and a trainer runs on all of "
                "them; leave process_group out, or call mtopt.backward in a loop of your own"
            )
    return found


def shares_buffers(model: nn.Module) -> bool:
    """Whether all ranks take the model's buffers from the first: unless DistributedDataParallel was told not to."""
    return not isinstance(model, DistributedDataParallel) or bool(model.broadcast_buffers)


@contextmanager
def quiet_forward(model: nn.Module) -> Iterator[None]:
    """Within, a forward of a DistributedDataParallel module waits for nobody: the trainer shares the buffers itself,
    where a rank that failed can be told from one that is late, and where the ranks may have unequal work."""
    if not isinstance(model, DistributedDataParallel):
        yield
        return
    before = model.broadcast_buffers
    model.broadcast_buffers = False
    try:
        yield
    finally:
        model.broadcast_buffers = before


def start_alike(trainer: Replicated, told: Sequence[Any]) -> None:
    """Have the ranks agree in where they are and in what they were ``told`` to do, and take the first one's weights."""
    processes = trainer.processes
    params = [param for group in trainer.optimizer.param_groups for param in group["params"]]
    if is_sharded(params):
        reshard(trainer.model)
        _check_sharded(trainer, params)
    if not processes.several:
        return
    if needs_closure(trainer.optimizer):
        raise ValueError(
            f"optimizer is {type(trainer.optimizer).__name__}, which computes the loss itself, of one rank's part of "
            "the batch; choose another optimizer, or train in one process"
        )
    processes.note("the steps and epochs that are done", (trainer.step, trainer.epoch))
    processes.note("what fit was asked for", told)
    held = {id(param): param for param in [*unwrapped(trainer.model).parameters(), *params]}
    copies = [param.detach() for param in held.values() if not is_sharded([param])]
    if copies:
        processes.take_first("the model's parameters", copies)
    share_buffers(trainer)


def _check_sharded(trainer: Replicated, params: Sequence[torch.Tensor]) -> None:
    """Raise where a training of sharded parameters would not be that of one process."""
    if trainer.precision.scaler is not None:
        raise ValueError(
            "autocast is torch.float16, whose scaler judges each rank's shard by itself, and the model is sharded by "
            "fully_shard; take torch.bfloat16, or MixedPrecisionPolicy of torch.distributed.fsdp"
        )
    own = {id(param) for param in trainer.model.parameters()}
    if outside := [number for number, param in enumerate(params) if id(param) not in own]:
        raise ValueError(
            f"optimizer has {len(outside)} parameters that are not the model's, number {outside[0]} first, and the "
            "model is sharded by fully_shard; apply it before the optimizer is made, to a model that has them all"
        )
    mesh = next(param.device_mesh for param in params if hasattr(param, "device_mesh"))
    if mesh.size() != trainer.processes.size:
        raise ValueError(
            f"model is sharded on a mesh of {mesh.size()} ranks, and a trainer runs on all {trainer.processes.size}; "
            "give fully_shard a mesh of all, of one dimension or of two (copies, shards), or call mtopt.backward in a "
            "loop of your own"
        )


def share_buffers(trainer: Replicated) -> None:
    """The model's buffers as the first rank has them, as DistributedDataParallel does before a forward."""
    if trainer.processes.several and trainer.shares_buffers:
        buffers = list(unwrapped(trainer.model).buffers())
        if buffers:
            trainer.processes.take_first("the model's buffers", buffers)


def shortest(lengths: Sequence[int | None]) -> int | None:
    """Batches in an epoch, which ends where the first rank has none left; None where one of them does not know."""
    return None if None in lengths else min(length for length in lengths if length is not None)
