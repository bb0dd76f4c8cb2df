"""The coordinate-wise trimmed mean."""

from __future__ import annotations

import torch

from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import CHUNK


@register_combiner("trimmed_mean")
class TrimmedMean(JacobianCombiner):
    """TrimmedMean: at each coordinate the mean of the gradients without the ``trim`` largest and ``trim`` smallest.

    Yin et al., "Byzantine-robust distributed learning: towards optimal statistical rates", ICML 2018, where
    ``trim = beta K``. It is a robust mean of gradients that estimate the same thing (workers, say): up to ``trim``
    arbitrary rows cannot carry it away. As a rule for different objectives it is a baseline; it may ignore one.

    At least one entry is left at each coordinate: when fewer than ``2 trim + 1`` gradients are there (a small K, or
    losses absent from the batch), ``(K - 1) // 2`` are trimmed at either end. That is the median for an odd K, the mean
    of the two in the middle for an even one, and thus the plain mean for two gradients.

    Equal gradients are returned as they are: the step is that of ``linear``.

    Args:
        trim: number of entries dropped at either end of each coordinate, >= 0; 0 is the mean.
    """

    shardable = True

    def __init__(self, *, trim: int = 1) -> None:
        if not isinstance(trim, int) or isinstance(trim, bool) or trim < 0:
            raise ValueError(f"trim must be a non-negative integer, found {trim!r}")
        self.trim = trim

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The mean of what is left at each coordinate: (D,) for a Jacobian (K, D)."""
        count = len(jacobian)
        trim = min(self.trim, (count - 1) // 2)
        dtype = torch.promote_types(jacobian.dtype, torch.float32)
        # in blocks: sorting makes a copy of the values and one of their places, at eight bytes each
        blocks = torch.split(jacobian, CHUNK, dim=1)
        means = [block.sort(0).values[trim : count - trim].mean(0, dtype=dtype) for block in blocks]
        return torch.cat(means).to(jacobian.dtype)
