"""What is refused of a training whose parameters are sharded, and what happens in the middle of one."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import mtopt
from mtopt.training import FrontArchive, WeightAverage
from tests.distributed.models import place, weights_of, wrapped
from tests.distributed.spawned import Caught
from tests.distributed.trainings import BATCH, Net, TwoErrors, data_of, found_in, held_out, loader_of, trainer_of


class Adamic(TwoErrors):
    """One with Adam, which counts its steps."""

    @classmethod
    def of(cls, wrap: str, rule: Any = "mgda") -> Adamic:
        model = wrapped(Net(), wrap)
        return cls(model, torch.optim.AdamW(model.parameters(), lr=0.02), rule, seed=3)


def run_adam(
    folder: Path | None, steps: int, rule: str = "mgda", wrap: str = "fsdp", batch: int = BATCH
) -> dict[str, Any]:
    """A training with Adam up to a step, from what is in the folder."""
    made: Any = mtopt.combiners.GradientHistory(mtopt.create_combiner("moco")) if rule == "history" else rule
    trainer = Adamic.of(wrap, made)
    trainer.fit(loader_of(data_of(), batch), steps=steps, checkpoint_dir=folder)
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


def run_portable(path: Path) -> torch.Tensor:
    """The parameters at the ninth step, from a file of the sixth, which is written where there is none."""
    trainer = Adamic.of("fsdp", "moco")
    if place()[1] > 1:
        trainer.fit(loader_of(data_of()), steps=6)
        trainer.save(path)
        trainer = Adamic.of("fsdp", "moco")
    trainer.load(path)
    trainer.fit(loader_of(data_of()), steps=9)
    return weights_of(trainer.model)


def run_spoiled(folder: Path) -> list[Any]:
    """What becomes of a run whose newest checkpoint was cut off, and of one in whose newest a byte is another."""
    found: list[Any] = []
    for kind in ("short", "other"):
        here = folder / kind
        run_adam(here, 12)
        (file,) = (here / "step-0000000012.shards").glob("__1_*.distcp")
        distributed.barrier()
        if place()[0] == 0:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 1
            file.write_bytes(content[:-1] if kind == "short" else content)
        distributed.barrier()
        trainer = Adamic.of("fsdp")
        with Caught() as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore", mtopt.training.CheckpointWarning)
            trainer.fit(loader_of(data_of()), steps=13, checkpoint_dir=here)
        left = sorted(path.name for path in here.glob("step-*"))
        found.append((trainer.step, left, "" if caught.raised is None else caught.raised.text))
    return found


REFUSED = {
    "average": "WeightAverage keeps a copy",
    "scaler": "autocast is torch.float16",
    "outside": "optimizer has 1 parameters that are not the model's",
    "mesh": "a mesh of 1 ranks",
    "no batch": "data has no batch on 1 of 2 ranks",
    "not told": "combiner is Forgetful, whose state is of each rank's shard",
}
"""What each error says."""


class Forgetful(mtopt.combiners.MoCo):
    """A rule that does not say what of its state is by coordinate."""

    by_coordinate = ()


def run_refused(name: str, folder: Path) -> str:
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
            fully_shard(net, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("here", "alone"))["alone"])
            TwoErrors(net, torch.optim.SGD(net.parameters(), lr=0.1), "mgda").fit(loader_of(data_of()), steps=1)
        elif name == "not told":
            trainer_of(Forgetful(), "fsdp").save(folder / "forgetful.pt")
            trainer_of(Forgetful(), "fsdp").fit(loader_of(data_of()), steps=1, checkpoint_dir=folder)
        else:
            trainer_of(wrap="fsdp").evaluate([] if place()[0] else list(held_out()))
    return "" if caught.raised is None else caught.raised.text
