"""Two gradients in plain floats: their closed forms take a third of the time that arrays of two take."""

from __future__ import annotations

import math
from typing import NamedTuple

from mtopt.linalg._arrays import Array


class TwoGradients(NamedTuple):
    """Two gradients, neither of them zero: ``first`` and ``second`` are their norms, over the larger of them."""

    first: float
    second: float
    cosine: float
    largest: float

    def independent(self, tolerance: float) -> bool:
        """Whether the smaller eigenvalue of the cosines, ``1 - |c|``, is above this share of the larger, ``1 + |c|``.

        False where rounding made the cosine larger than one, too.
        """
        return 1.0 - abs(self.cosine) > tolerance * (1.0 + abs(self.cosine))


def read_two(matrix: Array) -> TwoGradients | None:
    """The two gradients of a Gramian; None for another number of them, or a zero one."""
    if len(matrix) != 2:
        return None
    (first, cross), (other, second) = matrix.tolist()
    if first == 0.0 or second == 0.0:
        return None
    first, second = math.sqrt(first), math.sqrt(second)
    largest = max(first, second)
    return TwoGradients(first / largest, second / largest, 0.5 * (cross + other) / first / second, largest)
