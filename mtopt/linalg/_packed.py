"""Tensors of K rows that lie in one matrix, so that they are looked at together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class PackedTensors(NamedTuple):
    """Some of the tensors of K rows, by their positions in order, which are, one after the other, the rows of a matrix
    (K, n)."""

    positions: Sequence[int]
    shapes: Sequence[torch.Size]
    matrix: torch.Tensor

    def combined(self, coefficients: Sequence[float]) -> torch.Tensor:
        """``sum_k coefficients[k] * row_k`` (n,)."""
        # else a float32 product might be one of the 16 bits, or of the TF32, that the user allowed for the model
        if self.matrix.is_cpu and not torch.is_autocast_enabled("cpu") and not rounds_products("cpu"):
            return torch.mv(self.matrix.T, torch.tensor(coefficients, dtype=self.matrix.dtype))
        total = self.matrix[0] * coefficients[0]
        for row, coefficient in zip(self.matrix[1:], coefficients[1:], strict=True):
            total.add_(row, alpha=coefficient)
        return total


def cut_to_shapes(vector: torch.Tensor, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    """``vector`` in parts, one after the other, of these shapes: views."""
    pieces = vector.split_with_sizes([shape.numel() for shape in shapes])
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def rounds_products(device_type: str) -> bool:
    """Whether float32 matrix products may be TF32 or bfloat16 ones, autocast apart."""
    backend = {"cpu": torch.backends.mkldnn, "cuda": torch.backends.cuda}.get(device_type)
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if precision is not None:  # the settings of PyTorch 2.9; the older function reads them, too, but not every mixture
        return precision not in ("none", "ieee")
    return torch.get_float32_matmul_precision() != "highest"
