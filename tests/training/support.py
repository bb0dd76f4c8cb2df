"""A small model with two heads, its data, and trainers on them that can be built anew exactly alike."""

import hashlib
import random
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtopt.training import Callback, MultiLossTrainer

EXAMPLES, BATCH = 44, 8  # six batches an epoch, the last of them smaller


class TwoHeads(nn.Module):
    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Dropout(dropout))
        self.left = nn.Linear(12, 1)
        self.right = nn.Linear(12, 1)


class TwoLosses(MultiLossTrainer):
    """Squared errors of both heads, the trunk's output given as features."""

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        inputs, targets = batch
        self.features = self.model.trunk(inputs)
        return {
            "left": (self.model.left(self.features)[:, 0] - targets[:, 0]).square().mean(),
            "right": (self.model.right(self.features)[:, 0] - targets[:, 1]).square().mean(),
        }


class Point(nn.Module):
    """A problem without data: a point in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([2.0, 3.0]))


class PointTrainer(MultiLossTrainer):
    """Distances to (1, 0) and to (0, 1)."""

    def losses(self, batch: None) -> list[torch.Tensor]:
        x = self.model.x
        return [(x - torch.tensor(target)).square().sum() for target in ([1.0, 0.0], [0.0, 1.0])]


def data_set(seed: int = 3) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(EXAMPLES, 6, generator=generator)
    mixing = torch.randn(6, 2, generator=generator)
    return TensorDataset(inputs, torch.sin(inputs @ mixing))


def loader(own_generator: bool = False) -> DataLoader:
    generator = torch.Generator().manual_seed(11) if own_generator else None
    return DataLoader(data_set(), batch_size=BATCH, shuffle=True, generator=generator)


def sgd(params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=1e-3)


def adam(params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(params, lr=0.01)


def two_losses(
    combiner: Any = "mgda",
    *,
    make_optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer] = sgd,
    schedule: bool = True,
    callbacks: Iterable[Callback] = (),
    dropout: float = 0.2,
    seed: int | None = 5,
    **options: Any,
) -> TwoLosses:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = TwoHeads(dropout)
    optimizer = make_optimizer(model.parameters())
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40) if schedule else None
    return TwoLosses(model, optimizer, combiner, scheduler=scheduler, callbacks=callbacks, seed=seed, **options)


def point(combiner: Any = "mgda", lr: float = 0.1, **options: Any) -> PointTrainer:
    model = Point()
    return PointTrainer(model, torch.optim.SGD(model.parameters(), lr=lr), combiner, **options)


def fingerprint(trainer: MultiLossTrainer) -> str:
    """A digest of all the model's and the optimizer's numbers: equal only if they are, bit for bit."""
    digest = hashlib.sha256()
    for name, value in trainer.model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    for state in trainer.optimizer.state_dict()["state"].values():
        for key, value in state.items():
            digest.update(key.encode() + torch.as_tensor(value).numpy().tobytes())
    return digest.hexdigest()


class Probe(Callback):
    """Notes the order of the hooks."""

    def __init__(self, name: str = "", notes: list[str] | None = None) -> None:
        self.name = name
        self.notes: list[str] = [] if notes is None else notes

    def on_fit_start(self, trainer):
        self.notes.append(f"{self.name}start {trainer.step}")

    def on_step_end(self, trainer, record):
        assert trainer.history[-1].step == record.step == trainer.step
        self.notes.append(f"{self.name}step {record.step}")

    def on_epoch_end(self, trainer):
        self.notes.append(f"{self.name}epoch {trainer.epoch}")

    def on_evaluate(self, trainer, split, values):
        self.notes.append(f"{self.name}evaluate {split} {sorted(values)}")

    def on_fit_end(self, trainer):
        self.notes.append(f"{self.name}end {trainer.step}")


def interrupted(build, make_data, directory, stops, **limits):
    """Stopped after each of ``stops`` steps, and each time built anew among other random numbers."""
    for stop in stops:
        random.random(), np.random.rand(), torch.rand(stop)  # noqa: NPY002
        trainer = build()
        trainer.fit(make_data(), steps=stop, checkpoint_dir=directory, checkpoint_every=1000)
        assert trainer.step == stop
    trainer = build()
    trainer.fit(make_data(), checkpoint_dir=directory, **limits)
    return trainer


def same_history(a, b):
    left, right = a.history.state_dict(), b.history.state_dict()
    assert left["forms"] == right["forms"]
    columns, others = left["steps"]["columns"], right["steps"]["columns"]
    assert set(columns) == set(others)
    assert all(torch.equal(columns[key].nan_to_num(-1), others[key].nan_to_num(-1)) for key in columns)
    for split in a.history.splits:
        assert str(a.history.evaluations(split)) == str(b.history.evaluations(split))
    assert a.history.splits == b.history.splits


class Stateful:
    """A loader that knows where it is; it counts what it gave, and drops an example that it gave before."""

    def __init__(self):
        self.batches = list(DataLoader(data_set(), batch_size=BATCH))
        self.next = 0
        self.given = 0

    def __iter__(self):
        while self.next < len(self.batches):
            self.next += 1
            self.given += 1
            yield self.batches[self.next - 1]
        self.next = 0

    def __len__(self):
        return len(self.batches)

    def state_dict(self):
        return {"next": self.next}

    def load_state_dict(self, state):
        self.next = state["next"]
