"""Weighted sums of K rows, which lie in many tensors, or some of them in one matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from mtopt.linalg._inner_products import rounds_products
from mtopt.linalg._ownership import is_held_alone
from mtopt.linalg._sizes import CHUNK


def add_up(rows: Sequence[Sequence[torch.Tensor]], coefficients: Sequence[float], spend: bool) -> list[torch.Tensor]:
    result = _scale(rows[0], coefficients[0], spend)
    _add(result, rows[1:], coefficients[1:])
    return result


def exceed_float32(coefficients: Sequence[float]) -> bool:
    """Whether a factor, for a very short or very long gradient, is beyond what float32 holds."""
    return any(not 1e-30 < abs(c) < 1e30 for c in coefficients if c != 0)


def _scale(row: Sequence[torch.Tensor], coefficient: float, spend: bool) -> list[torch.Tensor]:
    """``coefficient`` times a row: new tensors, or big ones of the row itself when it may be spent."""
    if not spend or all(gradient.numel() < CHUNK for gradient in row):
        return list(torch._foreach_mul(list(row), coefficient))
    return [
        row[index].mul_(coefficient)
        if row[index].numel() >= CHUNK and is_held_alone(row, index)
        else row[index] * coefficient
        for index in range(len(row))
    ]


def _add(result: list[torch.Tensor], rows: Sequence[Sequence[torch.Tensor]], coefficients: Sequence[float]) -> None:
    rest = []
    for index, total in enumerate(result):
        if total.numel() > CHUNK and total.is_cpu:
            parts = [row[index] for row in rows]
            if all(tensor.is_contiguous() for tensor in (total, *parts)):
                _add_in_chunks(total, parts, coefficients)
                continue
        rest.append(index)
    if not rest:
        return
    if len(rest) < len(result):
        result, rows = [result[index] for index in rest], [[row[index] for index in rest] for row in rows]
    for row, coefficient in zip(rows, coefficients, strict=True):
        torch._foreach_add_(result, list(row), alpha=coefficient)


def _add_in_chunks(total: torch.Tensor, parts: Sequence[torch.Tensor], coefficients: Sequence[float]) -> None:
    """The sum of one tensor, so that its columns stay in the cache while all rows are added."""
    target = total.view(-1)
    sources = [part.view(-1) for part in parts]
    for start in range(0, len(target), CHUNK):
        piece = target[start : start + CHUNK]
        for source, coefficient in zip(sources, coefficients, strict=True):
            piece.add_(source[start : start + CHUNK], alpha=coefficient)


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
