"""Reading what callers pass: arrays, tensors on any device, lists of either."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mtopt._errors import NonFiniteError
from mtopt._real_numbers import as_real

Points = torch.Tensor | ArrayLike | Sequence[torch.Tensor]
"""(N, K) objective values."""

Vector = torch.Tensor | ArrayLike | Sequence[torch.Tensor]
"""(K,) values."""


def as_points(argument: str, value: Points) -> NDArray[np.float64]:
    """`value` as a finite float64 array (N, K), N >= 1, K >= 1.

    Raises:
        ValueError: another number of dimensions, empty, complex or masked.
        NonFiniteError: NaN or infinity, with the rows that hold it.
    """
    array = as_real(argument, value)
    if array.ndim != 2:
        raise ValueError(f"{argument} must have shape (N, K), one objective vector a row, found shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{argument} must hold at least one point, found shape {array.shape}")
    # moocore would take NaN silently for a point that dominates nothing, or for a distance of zero.
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise NonFiniteError(
            f"{argument} holds NaN or infinity in {bad.size} of {len(array)} rows (the first is row {bad[0]}); "
            "drop the rows of diverged runs first"
        )
    return array


def as_vector(argument: str, value: Vector, length: int, meaning: str) -> NDArray[np.float64]:
    """`value` as a finite float64 array (length,); `meaning` says what there is one entry of.

    Raises:
        ValueError: another shape, complex or masked.
        NonFiniteError: NaN or infinity.
    """
    array = as_real(argument, value)
    if array.shape != (length,):
        raise ValueError(
            f"{argument} must have shape ({length},), one entry for each {meaning}, found shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise NonFiniteError(f"{argument} must be finite, found {array.tolist()}")
    return array
