"""From what a caller passes to float64, with nothing lost on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def as_real(argument: str, value: Any) -> NDArray[np.float64]:
    """An array, a tensor, or lists of either, as a float64 array; NaN and infinity pass.

    Raises:
        ValueError: it is complex or masked, and would lose its imaginary part or its mask; its rows differ in length;
            or it holds something that is no number.
    """
    if isinstance(value, torch.Tensor):
        require_real(argument, value)
        return np.asarray(value.detach().to("cpu", torch.float64).numpy())
    rows = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(row, np.ma.MaskedArray) for row in rows):
        raise ValueError(
            f"{argument} must not be masked, found a masked array, whose mask would be lost: give the rows that count, "
            "or array.filled(value)"
        )
    if any(isinstance(row, torch.Tensor) for row in rows):
        value = [as_real(argument, row) for row in rows]
    try:
        array = np.asarray(value)
        numbers = array.dtype.kind in "buifO"
        found = np.asarray(array, dtype=np.float64) if numbers else array
    except (ValueError, TypeError) as error:
        raise ValueError(f"{argument} must be numbers in rows of equal length: {error}") from error
    require_real(argument, found)
    if not numbers:
        raise ValueError(f"{argument} must be numbers in rows of equal length, found {array.dtype}")
    return found


def require_real(argument: str, value: torch.Tensor | NDArray[Any]) -> None:
    """Raise where ``value`` is complex: its imaginary part would be lost."""
    if value.is_complex() if isinstance(value, torch.Tensor) else value.dtype.kind == "c":
        raise ValueError(
            f"{argument} must be real, found {str(value.dtype).removeprefix('torch.')}, whose imaginary part would be "
            "lost: give its real part or its absolute value, whichever is meant"
        )
