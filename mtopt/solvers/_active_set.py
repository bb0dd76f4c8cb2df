"""Non-negative least squares on inner products that are known to a tolerance."""

from __future__ import annotations

import numpy as np

from mtopt.linalg import Array, Mask, load_lapack

_ROUNDS = 30
"""Variables moved, over their number, after which the best so far is the answer."""


def nonnegative_within(matrix: Array, slopes: Array, size: float, tolerance: float, guess: Mask | None = None) -> Array:
    """``x >= 0``, (K,), with ``y = C x + q >= 0`` and ``x y = 0`` as far as C and q are known.

    The method of Lawson and Hanson (1974), on a Cholesky factor that grows by a row with each positive variable. A
    gradient that depends on those of the positive variables, as far as the Gramian can tell, is not made positive: its
    slope is a combination of theirs, which are zero, and only rounding speaks for it. So x stays bounded where a
    singular C would let it grow along its null space.

    Args:
        matrix: C, (K, K), of unit gradients (or of length up to two).
        slopes: q, (K,).
        size: the sum of the moduli of what was added up in q.
        tolerance: error of an entry of C.
        guess: which variables to begin with; those that come out negative are let go again. Default: none.
    """
    positive = _Positive(matrix, slopes, tolerance)
    values = np.zeros_like(slopes)
    if guess is not None:
        for index in guess.nonzero()[0].tolist():
            positive.append(index)
        while (found := positive.solve()).min(initial=1.0) <= 0.0:
            positive.keep(found > 0.0)
        values[positive.members] = found
    refused = np.zeros(len(slopes), dtype=bool)
    for _ in range(_ROUNDS * len(slopes)):
        descents = np.where(refused, 0.0, -(matrix.dot(values) + slopes))
        descents[positive.members] = 0.0
        steepest = int(descents.argmax())
        if descents[steepest] <= tolerance * (size + float(values.sum())):
            break
        if not positive.append(steepest):
            refused[steepest] = True
            continue
        while True:
            members = positive.members
            found, current = positive.solve(), values[members]
            if found.min(initial=1.0) > 0.0:
                values[members] = found
                break
            # as far as the first of them that reaches zero
            sinking = found <= 0.0
            ratios = current[sinking] / np.maximum(current[sinking] - found[sinking], 1e-300)
            share = float(ratios.min())
            moved = np.maximum(current + share * (found - current), 0.0)
            moved[np.flatnonzero(sinking)[ratios <= share]] = 0.0
            values[members] = moved
            positive.keep(moved > 0.0)
            refused[:] = False
            refused[steepest] = share == 0.0 and moved[members.index(steepest)] == 0.0
    values[positive.members] = positive.refined(values[positive.members])
    return values


class _Positive:
    """The positive variables, in order of their coming, and the factor of their matrix."""

    def __init__(self, matrix: Array, slopes: Array, tolerance: float) -> None:
        self.matrix, self.slopes, self.tolerance = matrix, slopes, tolerance
        self.lengths = np.sqrt(matrix.diagonal())
        self.members: list[int] = []
        self.factor = np.zeros_like(matrix)  # lower triangular

    def append(self, index: int) -> bool:
        """Take a variable in, unless its gradient depends on those that are in."""
        size = len(self.members)
        remainder = self.matrix[index, index]
        if size:
            factor = self.factor[:size, :size]
            row, _ = load_lapack().dtrtrs(factor, self.matrix[self.members, index], lower=1)
            coefficients, _ = load_lapack().dtrtrs(factor, row, lower=1, trans=1)
            reach = self.lengths[index] + float(np.abs(coefficients).dot(self.lengths[self.members]))
            remainder -= float(row.dot(row))
            if remainder <= 4.0 * self.tolerance * reach**2:
                return False
            self.factor[size, :size] = row
        self.factor[size, size] = np.sqrt(remainder)
        self.members = [*self.members, index]
        return True

    def keep(self, chosen: Mask) -> None:
        """Only some of them."""
        self.members = [member for member, stays in zip(self.members, chosen, strict=True) if stays]
        size = len(self.members)
        if size:
            block = self.matrix[np.ix_(self.members, self.members)]
            self.factor[:size, :size] = load_lapack().dpotrf(block, lower=1)[0]

    def solve(self) -> Array:
        """The values with which all their slopes are zero."""
        return self._solved(-self.slopes[self.members])

    def refined(self, values: Array) -> Array:
        """``values`` with a smaller error in every slope, where they stay positive."""
        missed = -self.slopes[self.members] - self.matrix[np.ix_(self.members, self.members)].dot(values)
        better = values + self._solved(missed)
        return better if better.min(initial=1.0) > 0.0 else values

    def _solved(self, right: Array) -> Array:
        size = len(right)
        return np.asarray(load_lapack().dpotrs(self.factor[:size, :size], right, lower=1)[0]) if size else right
