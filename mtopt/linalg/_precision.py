"""How exactly gradients and their inner products are known: what a program may conclude from a Gramian."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch

from mtopt.linalg._arrays import Array

_SINGLE = torch.finfo(torch.float32).eps


@dataclass(frozen=True, slots=True)
class Precision:
    """The rounding that a Gramian comes with, in unit gradients.

    Attributes:
        rows: relative rounding of the gradients themselves, as vectors: a combination of unit gradients that is shorter
            than a few times this, times the sum of the moduli of its weights, may be nothing but rounding.
        products: largest error of an inner product of two unit gradients, a cosine.
    """

    rows: float
    products: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Self:
        """That of gradients and inner products which both were rounded to ``dtype``."""
        epsilon = torch.finfo(dtype).eps
        return cls(epsilon, 4.0 * epsilon)

    @classmethod
    def behind(cls, gramian: Any) -> Self:
        """That of a Gramian of which nothing but its dtype is known; float64 where it is no tensor or array."""
        dtype = getattr(gramian, "dtype", None)
        if isinstance(dtype, torch.dtype):
            return cls.of(dtype)
        return cls.of(torch.float32 if dtype in (np.float32, np.float16) else torch.float64)

    @property
    def vanishing(self) -> float:
        """Squared length, over the squared sum of the moduli of its weights, below which a combination of unit
        gradients cannot be told from zero."""
        return max(self.products, self.rows**2)

    @property
    def linear(self) -> float:
        """Length of a combination of unit gradients, over the sum of the moduli of its weights, that its projection on
        another unit gradient is known to."""
        return max(self.products, self.rows)

    @property
    def short(self) -> float:
        """Length that a combination of unit gradients may have whose squared length is nothing but rounding, over the
        sum of the moduli of its weights."""
        return math.sqrt(self.products)

    def conflicts(self, cosines: Array) -> npt.NDArray[np.bool_]:
        """Which cosines (K, K) are below zero by more than the rounding of a product of orthogonal gradients."""
        return cosines < -self.products

    def of_numbers(self) -> Self:
        """That of the numbers which the rows hold. Rows of 16 bits are taken as they are, with no more doubt than those
        of float32: decisions by their own rounding would cost more than it does."""
        return type(self)(min(self.rows, _SINGLE), self.products)

    def rank_share(self, count: int) -> float:
        """Share of the largest eigenvalue of ``count`` gradients' cosines below which an eigenvalue counts as zero."""
        return count * self.vanishing


DOUBLE_PRECISION = Precision.of(torch.float64)
"""Of float64 gradients and their inner products in float64."""
