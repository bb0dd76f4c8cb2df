"""When a gradient is no more than the rounding of what it was made of."""

from __future__ import annotations

import torch

_SHARE = 32.0  # units in the last place of the longest gradient that rounding alone makes
_ZERO = 4.0  # units of one within which the value of a loss is a difference of logarithms that cancelled
_NEAR = 1000.0  # units of the longest gradient that it has then, at most


def unit_of(dtype: torch.dtype) -> float:
    """The rounding of one in this dtype; in 16 bits that of float32, in which losses are computed all the same."""
    return min(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)


def is_rounding(norm: float, longest: float, value: float, unit: float) -> bool:
    """Whether a gradient may be nothing but rounding, such as that of a divergence between a model and itself.

    It is where it is a few units of the longest one; or where the loss is zero but for rounding, and its gradient a
    small part of the longest, which itself may have become short in training.
    """
    share = norm / longest if longest > 0 else 1.0
    return 0 < share <= _SHARE * unit or (0 < share <= _NEAR * unit and abs(value) <= _ZERO * unit)
