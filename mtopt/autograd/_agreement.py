"""The check that a direction is the one that its inner products speak of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mtopt.linalg import SEGMENT, norm_of


def require_agreement(
    direction: Sequence[torch.Tensor],
    gramian: torch.Tensor,
    weights: torch.Tensor,
    *,
    scale: float,
    dtype: torch.dtype,
    what: str,
    advice: str,
) -> None:
    """Raise unless ``||d||² = w' G w``, to the rounding of ``dtype`` and to what is too small for d's own.

    ``direction``: d times ``scale``. ``what``: whose inner products they are; ``advice``: what to do; for the error.
    """
    length = _length_of(direction) / scale
    square = length**2
    if not math.isfinite(square):
        return  # such a step is skipped
    expected = float(weights @ gramian @ weights)
    bound = float((weights.abs() * gramian.diagonal().sqrt()).sum()) ** 2
    tolerance = min(1000 * torch.finfo(dtype).eps, 0.02)
    lost = _least_length(direction) / scale
    if abs(square - expected) > tolerance * bound + lost * (2.0 * math.sqrt(bound) + lost):
        raise RuntimeError(
            f"the inner products of {what} do not belong to the direction: its squared length is "
            f"{square:.6g}, and they say {expected:.6g}. {advice}"
        )


def _length_of(direction: Sequence[torch.Tensor]) -> float:
    """The norm of all entries to 1e-7, in one look: float32 squares of short segments, added in float64."""
    squares = [square.to(direction[0].device) for piece in direction for square in _squares(piece)]
    length = math.sqrt(float(torch.stack(squares).sum())) if squares else 0.0
    return length if 1e-15 < length < 1e15 or math.isnan(length) else norm_of(direction)


def _squares(piece: torch.Tensor) -> list[torch.Tensor]:
    flat = piece.detach().reshape(-1)
    end = len(flat) // SEGMENT * SEGMENT
    parts = [part for part in (flat[:end].view(-1, SEGMENT), flat[end:].unsqueeze(0)) if part.numel()]
    dtype = torch.promote_types(flat.dtype, torch.float32)
    return [torch.linalg.vector_norm(part, dim=1, dtype=dtype).double().square().sum() for part in parts]


def _least_length(direction: Sequence[torch.Tensor]) -> float:
    """The norm of entries that are all the least number there is: what is shorter may come out as zero."""
    kinds = [(piece.numel(), torch.finfo(piece.dtype)) for piece in direction]
    return math.hypot(*(math.sqrt(count) * kind.tiny * kind.eps for count, kind in kinds))
