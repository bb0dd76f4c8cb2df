"""What the suite's tasks share: a trunk with heads, seeded alike for every rule; whole batches in a seeded order."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import mse_loss
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import mtopt
from mtopt.experiments import Task

Outputs = Mapping[str, torch.Tensor]


class SharedTrunk(torch.nn.Module):
    """A trunk and, on its output, one head per name."""

    def __init__(self, trunk: torch.nn.Module, heads: Mapping[str, torch.nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = torch.nn.ModuleDict(heads)

    def outputs(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """What each head makes of the trunk's output."""
        return {name: head(features) for name, head in self.heads.items()}


class HeadsTask(Task):
    """A task on fixed tensors that are in memory: subclasses say what they are, what the model is, what is judged.

    Attributes:
        batch_size: examples per step; None: all of them.
        own_heads: each loss has a head of its own, so that the trunk's output is where rules meet.
    """

    batch_size: int | None = 128
    own_heads: bool = True

    @abstractmethod
    def dataset(self, split: str) -> TensorDataset:
        """Inputs and targets of a split, the same on every call."""

    @abstractmethod
    def network(self) -> SharedTrunk:
        """A fresh model; drawn from the global generator, which is seeded."""

    @abstractmethod
    def losses(self, outputs: Outputs, batch: Any) -> dict[str, torch.Tensor]:
        """What is trained on, one loss per objective."""

    @abstractmethod
    def errors(self, outputs: Outputs, batch: Any) -> Mapping[str, float]:
        """What is judged, on a whole split: each objective, and further metrics."""

    def trainer(
        self, combiner: mtopt.Combiner, *, learning_rate: float, seed: int, point: int, points: int
    ) -> HeadsTrainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + point)
            model = self.network()
        return HeadsTrainer(model, combiner, self, learning_rate=learning_rate, seed=seed)

    def data(self, split: str, *, seed: int) -> Any:
        dataset = self.dataset(split)
        if self.batch_size is None:
            return [dataset.tensors]
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(seed))
        # whole batches by one index each: collating single examples takes longer than training on them
        return DataLoader(dataset, sampler=BatchSampler(order, self.batch_size, drop_last=True), batch_size=None)

    def values(self, trainer: mtopt.MultiLossTrainer, split: str, *, seed: int) -> Mapping[str, float]:
        return trainer.evaluate([self.dataset(split).tensors])


class RegressionTask(HeadsTask):
    """Squared errors of one output each, in the order of the columns of the targets."""

    def losses(self, outputs: Outputs, batch: Any) -> dict[str, torch.Tensor]:
        names = [objective.name for objective in self.objectives]
        return {name: mse_loss(outputs[name][:, 0], batch[1][:, k]) for k, name in enumerate(names)}

    def errors(self, outputs: Outputs, batch: Any) -> Mapping[str, float]:
        return {name: float(value) for name, value in self.losses(outputs, batch).items()}


class HeadsTrainer(mtopt.MultiLossTrainer):
    """Adam on the losses of a :class:`HeadsTask`."""

    def __init__(
        self, model: SharedTrunk, combiner: mtopt.Combiner, task: HeadsTask, *, learning_rate: float, seed: int
    ) -> None:
        super().__init__(model, torch.optim.Adam(model.parameters(), lr=learning_rate), combiner, seed=seed)
        self.network = model
        self.task = task

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        features = self.network.trunk(batch[0])
        if self.task.own_heads:
            self.features = features
        return self.task.losses(self.network.outputs(features), batch)

    def metrics(self, batch: Any) -> Mapping[str, float]:
        return self.task.errors(self.network.outputs(self.network.trunk(batch[0])), batch)


def error_rate(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of (n, C) logits whose largest is not at the label, (n,)."""
    return float((logits.argmax(1) != labels).double().mean())


def small_convolutions(side: int, width: int = 64) -> torch.nn.Sequential:
    """From one channel of ``side`` x ``side`` pixels to ``width`` features: two convolutions and a linear layer."""
    pooled = (side - 4) // 2
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(8, 16, 3),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(16 * pooled * pooled, width),
        torch.nn.ReLU(),
    )


def perceptron(inputs: int, *widths: int) -> torch.nn.Sequential:
    """Linear layers, each with a ReLU after it."""
    layers: list[torch.nn.Module] = []
    for width in widths:
        layers += [torch.nn.Linear(inputs, width), torch.nn.ReLU()]
        inputs = width
    return torch.nn.Sequential(*layers)
