"""Trainings that run alike on one process and on several ranks, and what each rank has at their end."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset, TensorDataset

import mtopt
from mtopt.distributed import processes_of
from mtopt.training import BestCheckpoint, Callback, CSVLogger, EarlyStopping, FrontArchive, ProgressBar, WeightAverage
from tests.distributed.models import place, weights_of, wrapped
from tests.distributed.spawned import Caught

EXAMPLES, BATCH, HELD_OUT = 36, 6, 7


class Net(nn.Module):
    """Two outputs; with ``noise`` also what is random, and what is normalised by each rank's own part of the batch."""

    def __init__(self, noise: bool = False) -> None:
        super().__init__()
        between = [nn.BatchNorm1d(6), nn.Dropout(0.3)] if noise else []
        self.layers = nn.Sequential(nn.Linear(4, 6), *between, nn.Tanh(), nn.Linear(6, 2))
        generator = torch.Generator().manual_seed(2)
        for param in self.parameters():
            nn.init.normal_(param, std=0.5, generator=generator)
        self.double()

    def parts(self) -> list[nn.Module]:
        """Those that are sharded each by itself, where the model is."""
        return [self.layers[0]]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)


class TwoErrors(mtopt.MultiLossTrainer):
    """Squared errors of both outputs; the second is absent from batches in which nothing is labelled with it."""

    def losses(self, batch: Any) -> dict[str, torch.Tensor | None]:
        inputs, targets = batch
        errors = (self.model(inputs) - targets).square().mean(0) + 0.1
        return {"first": errors[0], "second": None if bool(targets[:, 1].isnan().all()) else errors[1]}


def data_of(count: int = EXAMPLES, seed: int = 1) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    return TensorDataset(inputs, torch.sin(inputs @ torch.randn(4, 2, generator=generator, dtype=torch.float64)))


def loader_of(data: Dataset[Any], batch: int = BATCH) -> DataLoader[Any]:
    """This rank's batches: together they are those of one process."""
    rank, size = place()
    sampler = DistributedSampler(data, size, rank, seed=4)
    return DataLoader(data, batch_size=batch // size, sampler=sampler)


def held_out() -> DataLoader[Any]:
    """This rank's part of what is evaluated on, not as many examples as the others'."""
    rank, size = place()
    return DataLoader(Subset(data_of(HELD_OUT, seed=8), range(rank, HELD_OUT, size)), batch_size=2)


def trainer_of(
    rule: Any = "mgda",
    wrap: str = "ddp",
    callbacks: Iterable[Callback] = (),
    *,
    noise: bool = False,
    rate: float = 0.05,
    **options: Any,
) -> TwoErrors:
    model = wrapped(Net(noise), wrap)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    return TwoErrors(model, optimizer, rule, callbacks=callbacks, seed=3, **options)


def found_in(trainer: TwoErrors) -> dict[str, Any]:
    """What must be the same on all ranks."""
    history = trainer.history
    return {
        "end": weights_of(trainer.model),
        "losses": {name: values.tolist() for name, values in history.losses.items()},
        "weights": {name: values.tolist() for name, values in history.weights.items()},
        "evaluations": {split: list(history.evaluated(split)) for split in history.splits},
        "rates": history.learning_rates.tolist(),
        "steps": trainer.step,
        "epochs": trainer.epoch,
        "state": repr(trainer.combiner.state_dict()),
    }


def run_training(
    rule: str, wrap: str, options: dict[str, Any], epochs: int = 2, averaged: bool = True
) -> dict[str, Any]:
    """Some epochs, evaluated after each; ``gen`` among the options brings an automatic learning rate."""
    options = dict(options)
    gen = options.pop("gen", False)
    trainer = trainer_of(rule, wrap, rate=1e-3 if gen else 0.05, **options)
    trainer.callbacks.append(mtopt.Evaluator(held_out()))
    if averaged:
        average = WeightAverage(0.5)
        trainer.callbacks += [average, mtopt.Evaluator(held_out(), split="averaged", average=average)]
    if gen:
        trainer.callbacks.append(mtopt.GeN(trainer.optimizer, every=2, startup=2))
    if distributed.is_initialized() and wrap == "bare" and place()[0]:
        with torch.no_grad():  # replicas that were not built alike start from the first one's
            next(trainer.model.parameters()).add_(1.0)
    trainer.fit(loader_of(data_of()), epochs=epochs)
    return found_in(trainer)


class Seen(Callback):
    """The inputs of each step's batch."""

    def __init__(self) -> None:
        self.inputs: list[torch.Tensor] = []

    def on_gradients(self, trainer: Any, batch: Any, record: Any) -> None:
        self.inputs.append(batch[0])


def run_shuffled() -> torch.Tensor:
    """What this rank saw in each of two epochs, (2, examples, 4)."""
    seen = Seen()
    trainer_of(callbacks=[seen]).fit(loader_of(data_of()), epochs=2)
    whole = torch.cat(seen.inputs)
    return whole.reshape(2, len(whole) // 2, 4)


def run_with_files(folder: Path, wrap: str = "ddp") -> dict[str, Any]:
    """A training that is stopped early, with everything that writes or shows something."""
    best = BestCheckpoint("validation", "first")
    archive = FrontArchive("validation", ["first", "second"], path=folder / "front")
    callbacks = [
        mtopt.Evaluator(held_out(), every=1),
        *(best, archive, CSVLogger(folder / "log.csv"), ProgressBar(force=True)),
        EarlyStopping("validation", "first", patience=2, min_delta=10.0),
    ]
    trainer = trainer_of(wrap=wrap, callbacks=callbacks)
    trainer.fit(loader_of(data_of()), epochs=9, checkpoint_dir=folder / "run")
    found = found_in(trainer)
    other = trainer_of(wrap=wrap)
    other.load(best.path)  # type: ignore[arg-type]
    values = other.evaluate(held_out())
    return found | {"best": best.best, "again": values["first"], "kept": [kept.step for kept in archive.kept]}


class StopsAt(Callback):
    """Has the training end at a step: ``how`` it does, on the second rank alone."""

    def __init__(self, step: int, how: str) -> None:
        self.step, self.how = step, how

    def on_step_end(self, trainer: Any, record: Any) -> None:
        if trainer.step != self.step or place()[0] != 1:
            return
        if self.how == "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            trainer.stop()


def run_ended(folder: Path, how: str) -> dict[str, Any]:
    """The second rank is told to end after the fourth step."""
    trainer = trainer_of(callbacks=[StopsAt(4, how)])
    code: Any = None
    started = time.monotonic()
    try:
        trainer.fit(loader_of(data_of()), epochs=3, checkpoint_dir=folder)
    except SystemExit as end:
        code = end.code
    files = sorted(path.name for path in folder.glob("step-*.pt"))
    return {"code": code, "steps": trainer.step, "files": files, "seconds": time.monotonic() - started}


def run_until(
    folder: Path, steps: int, noise: bool = False, rule: Any = "moco", wrap: str | None = None, **options: Any
) -> dict[str, Any]:
    """A training up to a step, from what is in the folder; on each rank among random numbers of its own."""
    torch.manual_seed(100 + place()[0])
    trainer = trainer_of(rule, wrap or ("bare" if steps % 2 else "ddp"), noise=noise, **options)
    trainer.seed = None
    trainer.callbacks.append(mtopt.Evaluator(held_out(), every=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mtopt.training.CheckpointWarning)  # there are more or fewer batches a rank
        trainer.fit(loader_of(data_of()), steps=steps, checkpoint_dir=folder, checkpoint_every=100)
    return found_in(trainer) | {"buffers": [buffer.tolist() for buffer in trainer.model.buffers()]}


def odd_tensors(rank: int) -> list[torch.Tensor]:
    """Of many dtypes and shapes, other numbers on each rank."""
    generator = torch.Generator().manual_seed(rank)
    numbers = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    return [
        *(numbers, numbers.t(), numbers[:, 0], numbers[0, 0], numbers[:0], numbers.float(), numbers.bfloat16()),
        *(numbers > 0, (numbers * 100).long(), (numbers * 100).byte(), torch.complex(numbers, -numbers)),
        torch.full((2,), torch.nan if rank == 0 else 1.0),
    ]


def run_exchanges() -> dict[str, Any]:
    """What ranks take, gather and average; the first number is that of both, the second of one, the third of none."""
    rank = place()[0]
    tensors = [
        tensor.clone() if tensor.is_contiguous() else tensor.clone().contiguous() for tensor in odd_tensors(rank)
    ]
    tensors[1] = tensors[1].t().contiguous().t()  # not contiguous
    with processes_of() as processes:
        processes.take_first("these", tensors)
        gathered = processes.gather({"rank": rank})
        means = processes.means({0: 1.0 + rank, **({1: 5.0} if rank else {})}, 3)
    return {"tensors": tensors, "gathered": gathered, "means": means}


class Broken(RuntimeError):
    """What goes wrong on the second rank."""


def _break(at: int = 1) -> None:
    if place()[0] == at:
        raise Broken("out of luck")


class _Breaks(Callback):
    def __init__(self, hook: str) -> None:
        setattr(self, hook, lambda *arguments: _break())


class _BreaksInLosses(TwoErrors):
    def losses(self, batch: Any) -> dict[str, torch.Tensor | None]:
        if self.step == 2:
            _break()
        return super().losses(batch)


class _BrokenData:
    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(loader_of(data_of())):
            if number == 2:
                _break()
            yield batch


def run_trouble(name: str, folder: Path) -> dict[str, Any]:
    """What a training with trouble on one rank comes to on this one, and how long that takes."""
    trainer, data, options = trainer_of(), loader_of(data_of()), {"epochs": 2}
    if name.startswith("on_"):
        trainer.callbacks.append(_Breaks(name))
        trainer.callbacks.append(mtopt.Evaluator(held_out(), every=3))
    elif name == "losses":
        model = wrapped(Net(noise=True), "ddp")
        trainer = _BreaksInLosses(model, torch.optim.SGD(model.parameters(), lr=0.05), "mgda")
    elif name == "data":
        data = _BrokenData()  # type: ignore[assignment]
    elif name == "checkpoint":
        if place()[0] == 0:
            (folder / "step-0000000003.pt").mkdir(parents=True)
        options |= {"checkpoint_dir": folder, "checkpoint_every": 3, "resume": False}
    elif name == "limits":
        options = {"epochs": 2 + place()[0]}
    started = time.monotonic()
    with Caught() as caught:
        if name == "evaluation_of_one":
            trainer.evaluate(held_out(), split="validation" if place()[0] else None)
        else:
            trainer.fit(data, **options)  # type: ignore[arg-type]
    again = trainer_of()
    again.fit(loader_of(data_of()), steps=1)  # they go on together
    raised = caught.raised
    assert raised is not None
    return {
        "kind": raised.kind,
        "text": raised.text,
        "seconds": time.monotonic() - started,
        "end": weights_of(again.model),
    }


TROUBLES = {
    "losses": ("Broken", "out of luck", "rank 1 raised Broken: out of luck"),
    "data": ("Broken", "out of luck", "rank 1 raised Broken: out of luck"),
    "on_fit_start": ("Broken", "out of luck", "rank 1 raised Broken: out of luck"),
    "on_gradients": ("Broken", "out of luck", "rank 1 raised Broken: out of luck"),
    "on_step_end": ("Broken", "out of luck", "rank 1 raised Broken: out of luck"),
    "on_epoch_end": ("Broken", "out of luck", "rank 1 raised Broken: out of luck"),
    "on_fit_end": ("Broken", "out of luck", "rank 1 raised Broken: out of luck"),
    "checkpoint": ("RankError", "rank 0 raised IsADirectoryError", "Is a directory"),
    "limits": ("RankError", "must agree in what fit was asked for", "must agree in what fit was asked for"),
    "evaluation_of_one": ("RankError", "agree in what they evaluate", "agree in what they evaluate"),
}
"""What each comes to on the second rank, what that says, and what the first says."""


def run_unequal() -> dict[str, Any]:
    """The second rank has two batches fewer in an epoch."""
    data = list(loader_of(data_of()))[: 6 - 2 * place()[0]]
    trainer = trainer_of()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer.fit(data, epochs=2)
    return found_in(trainer) | {"said": [str(one.message) for one in said]}
