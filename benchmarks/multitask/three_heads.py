"""One digit, turned: which it is, whether it is odd, and by which angle it was turned."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.ndimage import rotate
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from torch.utils.data import TensorDataset

import mtopt
from mtopt.experiments import Budget

from ._heads import HeadsTask, Outputs, SharedTrunk, error_rate, small_convolutions
from .multidigits import digits_of_splits

SIDE = 12
LARGEST = 45.0
"""Degrees; an angle is uniform between minus and plus this."""

COPIES = {"train": 3, "validation": 2, "test": 2}
"""Turned copies of each digit of a split, each at an angle of its own."""


@cache
def turned(split: str) -> TensorDataset:
    """Images (n, 1, 12, 12) float32, labels (n,), and angles (n,) as shares of 45 degrees, in [-1, 1].

    The digits are those of MultiDigits' split; their 8 x 8 pixels stand in the middle of the canvas. The same on every
    call.
    """
    images, labels = digits_of_splits()[split]
    generator = np.random.default_rng([2, list(COPIES).index(split)])
    images, labels = (np.concatenate([part] * COPIES[split]) for part in (images, labels))
    angles = generator.uniform(-1.0, 1.0, size=len(images))
    margin = (SIDE - images.shape[1]) // 2
    canvas = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    drawn = [
        rotate(image, LARGEST * angle, reshape=False, order=1) for image, angle in zip(canvas, angles, strict=True)
    ]
    return TensorDataset(
        torch.from_numpy(np.stack(drawn)[:, None]),
        torch.from_numpy(labels),
        torch.from_numpy(angles.astype(np.float32)),
    )


class ThreeHeads(HeadsTask):
    """Two related tasks, and one that needs what they are better off without.

    The angle's error is the mean absolute one over that of always saying 0, so that 1 is knowing nothing.
    """

    name = "digits_three_heads"
    title = "A turned digit: its class, its parity, its angle"
    objectives = (mtopt.Objective("class"), mtopt.Objective("parity"), mtopt.Objective("angle"))
    labels = ("error, class", "error, parity", "error, angle")
    reference_point = (1.0, 0.5, 1.0)
    learning_rates = (3e-4, 3e-2)
    budget = Budget(steps=1500, points=1, trials=12, seeds=5)
    quick_budget = Budget(steps=120, points=1, trials=2, seeds=3)

    def dataset(self, split: str) -> TensorDataset:
        return turned(split)

    def network(self) -> SharedTrunk:
        trunk = small_convolutions(SIDE, 64)
        sizes = {"class": 10, "parity": 1, "angle": 1}
        return SharedTrunk(trunk, {name: torch.nn.Linear(64, size) for name, size in sizes.items()})

    def losses(self, outputs: Outputs, batch: Any) -> dict[str, torch.Tensor]:
        _, labels, angles = batch
        odd = (labels % 2).float()
        return {
            "class": cross_entropy(outputs["class"], labels),
            "parity": binary_cross_entropy_with_logits(outputs["parity"][:, 0], odd),
            "angle": mse_loss(outputs["angle"][:, 0], angles),
        }

    def errors(self, outputs: Outputs, batch: Any) -> Mapping[str, float]:
        _, labels, angles = batch
        missed = float((outputs["angle"][:, 0] - angles).abs().mean())
        return {
            "class": error_rate(outputs["class"], labels),
            "parity": float(((outputs["parity"][:, 0] > 0) != (labels % 2 == 1)).double().mean()),
            "angle": missed / float(angles.abs().mean()),
            "angle, degrees": LARGEST * missed,
        }
