"""MultiDigits: two overlaid handwritten digits, two classifications, one trunk."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import TensorDataset

import mtopt
from mtopt.experiments import Budget

from ._heads import HeadsTask, Outputs, SharedTrunk, error_rate, small_convolutions

SPLITS = {"train": 6000, "validation": 1500, "test": 1500}
"""Overlaid images of each split; the digits themselves are divided 60 : 20 : 20 before any are overlaid."""


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


@cache
def variance_of_images(offset: int = 3) -> float:
    """The mean over pixels of their variance over the training images."""
    return float(overlaid("train", offset).tensors[0].var(0, unbiased=False).mean())


class MultiDigits(HeadsTask):
    """Error rates of the left and the right digit."""

    name = "multidigits"
    title = "MultiDigits: two overlaid handwritten digits"
    objectives: tuple[mtopt.Objective, ...] = (mtopt.Objective("left"), mtopt.Objective("right"))
    labels: tuple[str, ...] = ("error rate of the left digit", "error rate of the right digit")
    reference_point: tuple[float, ...] = (1.0, 1.0)
    learning_rates = (3e-4, 3e-2)
    budget = Budget(steps=1500, points=1, trials=12, seeds=5)
    quick_budget = Budget(steps=160, points=1, trials=2, seeds=3)
    offset = 3

    def dataset(self, split: str) -> TensorDataset:
        return overlaid(split, self.offset)

    def network(self) -> SharedTrunk:
        trunk = small_convolutions(8 + self.offset, 64)
        return SharedTrunk(trunk, {name: torch.nn.Linear(64, 10) for name in ("left", "right")})

    def losses(self, outputs: Outputs, batch: Any) -> dict[str, torch.Tensor]:
        return {name: cross_entropy(outputs[name], labels) for name, labels in self._labels(batch)}

    def errors(self, outputs: Outputs, batch: Any) -> Mapping[str, float]:
        results: dict[str, float] = {}
        for name, labels in self._labels(batch):
            results[name] = error_rate(outputs[name], labels)
            results[f"cross-entropy, {name}"] = float(cross_entropy(outputs[name], labels))
        return results

    @staticmethod
    def _labels(batch: Any) -> tuple[tuple[str, torch.Tensor], ...]:
        return ("left", batch[1]), ("right", batch[2])


class MultiDigitsReconstruction(MultiDigits):
    """MultiDigits with a third objective, to draw the image again from the same 64 features.

    Its error is the squared error over the variance of the training images: 1 is to draw their mean.
    """

    name = "multidigits_reconstruction"
    title = "MultiDigits and the image itself"
    objectives = (*MultiDigits.objectives, mtopt.Objective("image"))
    labels = ("error, left", "error, right", "error, image")
    reference_point = (1.0, 1.0, 1.0)
    quick_budget = Budget(steps=120, points=1, trials=2, seeds=3)

    def network(self) -> SharedTrunk:
        model = super().network()
        side = 8 + self.offset
        model.heads["image"] = torch.nn.Linear(64, side * side)
        return model

    def losses(self, outputs: Outputs, batch: Any) -> dict[str, torch.Tensor]:
        return {**super().losses(outputs, batch), "image": self._squared_error(outputs, batch)}

    def errors(self, outputs: Outputs, batch: Any) -> Mapping[str, float]:
        return {**super().errors(outputs, batch), "image": float(self._squared_error(outputs, batch))}

    def _squared_error(self, outputs: Outputs, batch: Any) -> torch.Tensor:
        images = batch[0].flatten(1)
        return mse_loss(outputs["image"], images) / variance_of_images(self.offset)
