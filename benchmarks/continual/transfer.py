"""What a sequence of tasks does to each of them, from a matrix of accuracies.

``R`` is (T, T): row i holds the accuracy on every task after training on task i, the tasks being in the order in which
they are learned (Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017, section 2).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Matrix = npt.ArrayLike


def average_accuracy(accuracies: Matrix) -> float:
    """ACC, the mean over tasks at the end: ``1/T sum_i R[T, i]``."""
    return float(_square(accuracies)[-1].mean())


def backward_transfer(accuracies: Matrix) -> float:
    """BWT, what later tasks did to earlier ones: ``1/(T-1) sum_{i<T} R[T, i] - R[i, i]``. Negative is forgetting."""
    matrix = _square(accuracies)
    return float((matrix[-1] - matrix.diagonal())[:-1].mean())


def forward_transfer(accuracies: Matrix, untrained: Matrix) -> float:
    """FWT, what earlier tasks did to later ones before these were seen: ``1/(T-1) sum_{i>1} R[i-1, i] - b[i]``.

    Args:
        accuracies: (T, T).
        untrained: (T,) accuracies b of the model before any training.
    """
    matrix = _square(accuracies)
    start = np.asarray(untrained, dtype=np.float64)
    if start.shape != matrix.shape[:1]:
        raise ValueError(f"untrained must hold one accuracy for each of {len(matrix)} tasks, found shape {start.shape}")
    return float((matrix.diagonal(1) - start[1:]).mean())


def _square(accuracies: Matrix) -> npt.NDArray[np.float64]:
    matrix = np.asarray(accuracies, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(f"accuracies must be (T, T) with T >= 2, one row per task learned, found shape {matrix.shape}")
    return matrix
