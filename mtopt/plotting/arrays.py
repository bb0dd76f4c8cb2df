"""From what a caller passes to float64 arrays of a known shape, or one clear ValueError."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mtopt._real_numbers import as_real

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Array = ArrayLike | torch.Tensor


def as_floats(value: Any, argument: str) -> FloatArray:
    """A float64 array of anything array-like, tensors that require grad and of any dtype included."""
    return as_real(argument, value)


def as_points(value: Any, argument: str, columns: Sequence[int]) -> FloatArray:
    """An (N, columns) array; a single (columns,) point counts as N = 1."""
    points = as_floats(value, argument)
    if points.ndim == 1 and len(points) in columns:
        points = points[None]
    if points.ndim != 2 or points.shape[1] not in columns:
        shape = " or ".join(f"(N, {c})" for c in columns)
        raise ValueError(
            f"{argument} must have shape {shape}; found {points.shape}: pass one row per point, "
            "and pick the columns to draw, as in points[:, [0, 1]]"
        )
    return points


def as_pieces(value: Any, argument: str, columns: Sequence[int]) -> list[FloatArray]:
    """One array, or a sequence of arrays, as the list of (N, columns) arrays it stands for."""
    if _is_array(value) or not _is_sequence_of_arrays(value):
        stacked = as_floats(value, argument)
        if stacked.ndim == 3:
            return [as_points(piece, f"{argument}[{i}]", columns) for i, piece in enumerate(stacked)]
        return [as_points(stacked, argument, columns)]
    return [as_points(piece, f"{argument}[{i}]", columns) for i, piece in enumerate(value)]


def named_pieces(value: Any, argument: str, columns: Sequence[int]) -> dict[str, list[FloatArray]]:
    """``{rule: list of (N, columns) arrays}`` with the same number of columns everywhere, no rule empty."""
    check_mapping(value, argument)
    pieces = {name: as_pieces(item, f"{argument}[{name!r}]", columns) for name, item in value.items()}
    widths = {name: {p.shape[1] for p in parts} for name, parts in pieces.items()}
    if len(set().union(*widths.values())) > 1:
        found = {name: sorted(width) for name, width in widths.items()}
        raise ValueError(
            f"{argument} must have the same number of columns for every rule; found {found}: "
            "draw two and three objectives in separate figures"
        )
    for name, parts in pieces.items():
        if sum(len(part) for part in parts) == 0:
            raise ValueError(f"{argument}[{name!r}] must have at least one point; found none: leave the rule out")
    return pieces


def deviation_over_seeds(seeds: FloatArray) -> FloatArray:
    """The standard deviation over the first axis; NaN where a seed is not finite."""
    deviation: FloatArray = np.where(np.isfinite(seeds), seeds, np.nan).std(axis=0, ddof=1)
    return deviation


def check_mapping(value: Any, argument: str) -> None:
    if not isinstance(value, Mapping):
        raise ValueError(
            f"{argument} must be a mapping from rule names to data; found {type(value).__name__}: "
            f"pass {{'my rule': data}}"
        )
    if not value:
        raise ValueError(f"{argument} must name at least one rule; found an empty mapping")


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor)


def _is_sequence_of_arrays(value: Any) -> bool:
    # [[1, 2], [3, 4]] is one array of two points; [array, array] and three levels of lists are two arrays.
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return False
    first = value[0]
    if _is_array(first):
        return True
    return isinstance(first, Sequence) and len(first) > 0 and (_is_array(first[0]) or isinstance(first[0], Sequence))
