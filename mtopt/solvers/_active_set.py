"""Non-negative least squares on inner products that are known to a tolerance."""

from __future__ import annotations

import numpy as np

from mtopt.linalg import Array, Indices, Mask, load_lapack

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
        positive.begin(guess.nonzero()[0])
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

    def begin(self, indices: Indices) -> None:
        """Take in the first of ``indices``, the furthest from those before it first, up to one that depends on them."""
        if not len(indices):
            return
        factor, order, rank, _ = load_lapack().dpstrf(self._block(indices), tol=4.0 * self.tolerance, lower=1)
        factor = np.tril(factor[:rank, :rank])
        indices = indices[order[:rank] - 1]
        lengths, pivots = self.lengths[indices], factor.diagonal()
        inverse, _ = load_lapack().dtrtri(factor, lower=1)  # row j, times pivot j: minus its coefficients; one at j
        reach = pivots * np.abs(inverse).dot(lengths)
        independent = pivots**2 > 4.0 * self.tolerance * reach**2
        size = rank if independent.all() else int(independent.argmin())
        self.members = indices[:size].tolist()
        self.factor[:size, :size] = factor[:size, :size]

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
            self.factor[:size, :size] = load_lapack().dpotrf(self._block(self.members), lower=1)[0]

    def solve(self) -> Array:
        """The values with which all their slopes are zero."""
        return self._solved(-self.slopes[self.members])

    def refined(self, values: Array) -> Array:
        """``values`` with a smaller error in every slope, where they stay positive."""
        missed = -self.slopes[self.members] - self._block(self.members).dot(values)
        better = values + self._solved(missed)
        return better if better.min(initial=1.0) > 0.0 else values

    def _block(self, members: Indices | list[int]) -> Array:
        return self.matrix.take(members, 0).take(members, 1)

    def _solved(self, right: Array) -> Array:
        size = len(right)
        return np.asarray(load_lapack().dpotrs(self.factor[:size, :size], right, lower=1)[0]) if size else right
