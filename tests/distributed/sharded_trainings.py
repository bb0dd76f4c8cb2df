"""What is refused of a training whose parameters are sharded, and what happens in the middle of one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import mtopt
from mtopt.training import FrontArchive, WeightAverage
from tests.distributed.models import place, weights_of, wrapped
from tests.distributed.spawned import Caught
from tests.distributed.trainings import Net, TwoErrors, data_of, found_in, held_out, loader_of, trainer_of


class Adamic(TwoErrors):
    """One with Adam, which counts its steps."""

    @classmethod
    def of(cls, wrap: str) -> Adamic:
        model = wrapped(Net(), wrap)
        return cls(model, torch.optim.AdamW(model.parameters(), lr=0.02), "mgda", seed=3)


def run_adam(folder: Path | None, steps: int, wrap: str = "fsdp") -> dict[str, Any]:
    """A training with Adam up to a step, from what is in the folder."""
    trainer = Adamic.of(wrap)
    trainer.fit(loader_of(data_of()), steps=steps, checkpoint_dir=folder)
    return found_in(trainer)


def run_back() -> list[torch.Tensor]:
    """Parameters after six steps, and after four more from the state in memory of the second."""
    trainer = Adamic.of("fsdp")
    trainer.fit(loader_of(data_of()), steps=6)
    at_once = weights_of(trainer.model)
    trainer = Adamic.of("fsdp")
    trainer.fit(loader_of(data_of()), steps=2)
    other = Adamic.of("fsdp")
    other.load_state_dict(trainer.state_dict())
    other.fit(loader_of(data_of()), steps=6)
    return [at_once, weights_of(other.model)]


def run_archived(folder: Path) -> list[torch.Tensor]:
    """The parameters when a model was kept, and what is read from its file afterwards."""
    archive = FrontArchive("validation", ["first", "second"], path=folder)
    trainer = trainer_of(wrap="fsdp", callbacks=[archive])
    trainer.fit(loader_of(data_of()), steps=2)
    trainer.evaluate(held_out(), split="validation")
    kept = weights_of(trainer.model)
    trainer.callbacks.clear()
    trainer.fit(loader_of(data_of()), steps=4)
    archive.load(archive.kept[0], trainer.model)
    return [kept, weights_of(trainer.model)]


def _errors(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    return list((model(inputs) - targets).square().mean(0))


def run_rate(wrap: str = "fsdp") -> torch.Tensor:
    """The parameters at the end of an epoch of a loop without a trainer, with an automatic learning rate."""
    model = wrapped(Net(), wrap)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    gen, rule = mtopt.GeN(optimizer, every=1, startup=0), mtopt.create_combiner("mgda")
    for batch in loader_of(data_of()):
        losses = partial(_errors, model, *batch)
        optimizer.zero_grad()
        mtopt.backward(losses(), model, rule)
        gen.step(losses)
        optimizer.step()
    return weights_of(model)


REFUSED = {
    "average": "WeightAverage keeps a copy",
    "scaler": "autocast is torch.float16",
    "outside": "optimizer has 1 parameters that are not the model's",
    "mesh": "mesh of shape (1, 2)",
    "no batch": "data has no batch on 1 of 2 ranks",
}
"""What each error says."""


def run_refused(name: str) -> str:
    """What is said, on each rank alike."""
    with Caught() as caught:
        if name == "average":
            trainer_of(wrap="fsdp", callbacks=[WeightAverage()]).fit(loader_of(data_of()), steps=1)
        elif name == "scaler":
            trainer_of(wrap="fsdp", autocast=torch.float16).fit(loader_of(data_of()), steps=1)
        elif name == "outside":
            model = wrapped(Net(), "fsdp")
            params = [*model.parameters(), torch.nn.Parameter(torch.ones(1))]
            TwoErrors(model, torch.optim.SGD(params, lr=0.1), "mgda").fit(loader_of(data_of()), steps=1)
        elif name == "mesh":
            net = Net()
            fully_shard(net, mesh=init_device_mesh("cpu", (1, 2), mesh_dim_names=("copies", "shards")))
            TwoErrors(net, torch.optim.SGD(net.parameters(), lr=0.1), "mgda").fit(loader_of(data_of()), steps=1)
        else:
            trainer_of(wrap="fsdp").evaluate([] if place()[0] else list(held_out()))
    return "" if caught.raised is None else caught.raised.text
