"""MultiDigits: two overlaid handwritten digits, two classifications, one trunk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import mtopt
from mtopt.experiments import Budget, Task

SPLITS = {"train": 6000, "validation": 1500, "test": 1500}
"""Overlaid images a split; the digits themselves are divided 60 : 20 : 20 before any are overlaid."""


@cache
def digits_of_splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (n, 8, 8) in [0, 1] and labels (n,) of each split: disjoint sets of the 1,797 digits of scikit-learn."""
    digits = load_digits()
    images, labels = digits.images.astype(np.float32) / 16.0, digits.target
    train, rest, train_labels, rest_labels = train_test_split(
        images, labels, test_size=0.4, random_state=0, stratify=labels
    )
    validation, test, validation_labels, test_labels = train_test_split(
        rest, rest_labels, test_size=0.5, random_state=0, stratify=rest_labels
    )
    return {
        "train": (train, train_labels),
        "validation": (validation, validation_labels),
        "test": (test, test_labels),
    }


@cache
def overlaid(split: str, offset: int = 3) -> TensorDataset:
    """Pairs of digits of one split on a canvas of 8 + offset pixels a side: the left one at the top left, the right one
    ``offset`` pixels down and to the right, the brighter of the two where they overlap, as in MultiMNIST.

    Images (n, 1, 8 + offset, 8 + offset) float32, left labels (n,), right labels (n,). The same on every call.
    """
    images, labels = digits_of_splits()[split]
    generator = np.random.default_rng(list(SPLITS).index(split))
    left, right = generator.integers(len(images), size=(2, SPLITS[split]))
    canvas = np.zeros((SPLITS[split], 1, 8 + offset, 8 + offset), dtype=np.float32)
    canvas[:, 0, :8, :8] = images[left]
    corner = canvas[:, 0, offset:, offset:]
    np.maximum(corner, images[right], out=corner)
    return TensorDataset(torch.from_numpy(canvas), torch.from_numpy(labels[left]), torch.from_numpy(labels[right]))


class TwoHeads(torch.nn.Module):
    """A small convolutional trunk shared by two linear classifiers."""

    def __init__(self, side: int, width: int = 64) -> None:
        super().__init__()
        pooled = (side - 4) // 2
        self.trunk = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 16, 3),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(16 * pooled * pooled, width),
            torch.nn.ReLU(),
        )
        self.left = torch.nn.Linear(width, 10)
        self.right = torch.nn.Linear(width, 10)


class TwoDigitTrainer(mtopt.MultiLossTrainer):
    """Cross-entropy of the left and of the right digit."""

    def __init__(self, model: TwoHeads, combiner: mtopt.Combiner, *, learning_rate: float, seed: int) -> None:
        super().__init__(model, torch.optim.Adam(model.parameters(), lr=learning_rate), combiner, seed=seed)
        self.heads = model

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        images, left, right = batch
        self.features = features = self.heads.trunk(images)
        return {
            "left": torch.nn.functional.cross_entropy(self.heads.left(features), left),
            "right": torch.nn.functional.cross_entropy(self.heads.right(features), right),
        }

    def metrics(self, batch: Any) -> Mapping[str, float]:
        images, left, right = batch
        features = self.heads.trunk(images)
        results: dict[str, float] = {}
        for name, head, labels in (("left", self.heads.left, left), ("right", self.heads.right, right)):
            logits = head(features)
            results[name] = float((logits.argmax(1) != labels).double().mean())
            results[f"cross-entropy, {name}"] = float(torch.nn.functional.cross_entropy(logits, labels))
        return results


class MultiDigits(Task):
    """Error rates of the left and the right digit."""

    name = "multidigits"
    title = "MultiDigits: two overlaid handwritten digits"
    objectives = (mtopt.Objective("left"), mtopt.Objective("right"))
    labels = ("error rate of the left digit", "error rate of the right digit")
    reference_point = (1.0, 1.0)
    learning_rates = (3e-4, 3e-2)
    budget = Budget(steps=1500, points=1, trials=12, seeds=5)
    quick_budget = Budget(steps=160, points=1, trials=2, seeds=3)
    batch_size = 128
    offset = 3

    def trainer(
        self, combiner: mtopt.Combiner, *, learning_rate: float, seed: int, point: int, points: int
    ) -> TwoDigitTrainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + point)
            model = TwoHeads(8 + self.offset)
        return TwoDigitTrainer(model, combiner, learning_rate=learning_rate, seed=seed)

    def data(self, split: str, *, seed: int) -> DataLoader[Any]:
        dataset = overlaid(split, self.offset)
        order = RandomSampler(dataset, generator=torch.Generator().manual_seed(seed))
        # whole batches by one index each: collating single images takes longer than training on them
        return DataLoader(dataset, sampler=BatchSampler(order, self.batch_size, drop_last=True), batch_size=None)

    def values(self, trainer: mtopt.MultiLossTrainer, split: str, *, seed: int) -> Mapping[str, float]:
        return trainer.evaluate([overlaid(split, self.offset).tensors])
