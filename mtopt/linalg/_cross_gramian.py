"""Inner products of the gradients of two batches."""

from __future__ import annotations

import torch

from mtopt.linalg._arrays import Array, read_array
from mtopt.linalg._gradients import Gradients


def cross_gramian_of(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """J1 J2ᵀ of two (K, D) Jacobians: (K, K), float64, on the CPU, as exact as ``gramian_of``."""
    if first.ndim != 2 or first.shape != second.shape or len(first) == 0:
        raise ValueError(
            f"first and second must have one shape (K, D) with K >= 1, found {tuple(first.shape)} and "
            f"{tuple(second.shape)}"
        )
    return multiply_gradients(Gradients.of(first), Gradients.of(second))


def multiply_gradients(first: Gradients, second: Gradients) -> torch.Tensor:
    """The inner product of each row of ``first`` with each of ``second``, free of their scales: (K, K) float64."""
    # One Gramian of the rows of both: chunks, precision and the guard against underflow are those of every rule. The
    # two blocks on the diagonal cost the time of the other two again, which is memory traffic more than arithmetic.
    count = len(first.objectives)
    joint = Gradients([*first.rows, *second.rows]).gramian
    return joint[:count, count:] / (first.scale * second.scale)


def read_cross_gramian(gramian: torch.Tensor) -> Array:
    """A cross-Gramian as a float64 array; unlike a Gramian it need not be symmetric, nor its diagonal positive."""
    matrix = read_array(gramian)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(f"gramian must have shape (K, K) with K >= 1, found {tuple(matrix.shape)}")
    return matrix
