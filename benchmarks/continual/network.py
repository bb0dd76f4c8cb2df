"""The classifier: three linear layers, of which each task may have a version of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

Scale = tuple[torch.Tensor, torch.Tensor]
"""An orthonormal basis (d, k) of a layer's inputs and a matrix (k, k) that its weights are scaled with there."""


class Classifier(torch.nn.Module):
    """64 pixels, two hidden layers with ReLU, ten logits; without biases, as gradient projection on inputs wants it."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = (64, width, width, 10)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(n, m, bias=False) for n, m in itertools.pairwise(sizes))

    def weights(self) -> list[torch.Tensor]:
        """(outputs, inputs) of each layer."""
        return list(self.layers.parameters())

    def inputs(self, images: torch.Tensor, scales: Sequence[Sequence[Scale]] | None = None) -> list[torch.Tensor]:
        """What goes into each layer, (n, inputs), and last the logits (n, 10).

        Args:
            images: (n, 64).
            scales: for each layer, the scales of its weights W: with (B, Q) it is W + W B (Q - 1) B'.
        """
        found = [images]
        for place, weight in enumerate(self.weights()):
            used = scaled(weight, scales[place]) if scales else weight
            result = found[-1] @ used.T
            found.append(result if place == len(self.layers) - 1 else result.relu())
        return found

    def forward(self, images: torch.Tensor, scales: Sequence[Sequence[Scale]] | None = None) -> torch.Tensor:
        return self.inputs(images, scales)[-1]


def scaled(weight: torch.Tensor, scales: Sequence[Scale]) -> torch.Tensor:
    """W + sum_j W B_j (Q_j - 1) B_j'."""
    parts = [weight]
    for basis, scale in scales:
        parts.append(weight @ basis @ (scale - torch.eye(len(scale))) @ basis.T)
    return torch.stack(parts).sum(0) if len(parts) > 1 else weight
