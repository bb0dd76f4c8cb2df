"""Bytes of the tensors that enter the collectives of one step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

import mtopt
from tests.distributed.models import wrapped
from tests.distributed.trainings import Net, data_of, loader_of


class Bytes(TorchDispatchMode):
    """Those of whole tensors, by the kind of collective."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        whole = {"_allgather_base_": args[:1], "_reduce_scatter_base_": args[1:2], "allreduce_": args[0]}
        if function.namespace == "c10d":
            kind = function.overloadpacket.__name__
            for tensor in whole.get(kind, ()):
                self.found[kind] += tensor.numel() * tensor.element_size()
        return function(*args, **(kwargs or {}))


def _count_bucket(found: Counter[str], bucket: Any) -> Any:
    """A hook of DDP, whose own collectives are not dispatched."""
    tensor = bucket.buffer()
    found["allreduce_"] += tensor.numel() * tensor.element_size()
    tensor /= distributed.get_world_size()
    return distributed.all_reduce(tensor, async_op=True).get_future().then(lambda future: future.value()[0])


def _errors(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    return list((model(inputs) - targets).square().mean(0))


def run_step(way: str, rule: str, wrap: str) -> dict[str, int]:
    """One step of two objectives, ``plain`` or by a rule, after one that lets torch set itself up."""
    model = wrapped(Net(), wrap)
    combiner = mtopt.create_combiner(rule)
    for number, batch in zip(range(2), loader_of(data_of()), strict=False):
        counted = Bytes()
        if isinstance(model, DistributedDataParallel) and way == "plain" and number == 1:
            model.register_comm_hook(counted.found, lambda found, bucket: _count_bucket(found, bucket))
        with counted if not (wrap == "ddp" and way == "plain") else Bytes():
            if way == "plain":
                torch.stack(_errors(model, *batch)).sum().backward()
            elif way == "callables":
                losses = [lambda k=k, batch=batch: _errors(model, *batch)[k] for k in range(2)]
                mtopt.backward(losses, model, combiner)
            else:
                mtopt.backward(_errors(model, *batch), model, combiner)
    return dict(counted.found)
