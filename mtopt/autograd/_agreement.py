"""The check that a direction is the one that its inner products speak of."""

from __future__ import annotations

import math

import torch


def require_agreement(
    length: float, gramian: torch.Tensor, weights: torch.Tensor, dtype: torch.dtype, what: str, advice: str
) -> None:
    """Raise unless ``||d||² = w' G w`` for the direction d of this length, to the rounding of ``dtype``.

    Args:
        length: of d, free of any scale.
        gramian, weights: G (K, K) and w (K,), float64.
        what: whose inner products they are, and
        advice: what to do, for the error.
    """
    square = length**2
    if not math.isfinite(square):
        return  # such a step is skipped
    expected = float(weights @ gramian @ weights)
    bound = float((weights.abs() * gramian.diagonal().sqrt()).sum()) ** 2
    tolerance = min(1000 * torch.finfo(dtype).eps, 0.02)
    if abs(square - expected) > tolerance * bound:
        raise RuntimeError(
            f"the inner products of {what} do not belong to the direction: its squared length is "
            f"{square:.6g}, and they say {expected:.6g}. {advice}"
        )
