"""Projection on the cone of directions along which no loss rises."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from mtopt.linalg import (
    Array,
    Indices,
    Live,
    Mask,
    Precision,
    load_lapack,
    normalize_live_rows,
    read_array,
    read_gramian,
    require_cosine,
    require_semidefinite,
    take_block,
)
from mtopt.solvers._active_set import nonnegative_within
from mtopt.solvers._certificate import Certificate, certify
from mtopt.solvers._nonnegative import FEW, exchange, one_at_a_time
from mtopt.solvers._together import FEW_LOOKS, PATIENT, guess_together, solve_together

_NAME = "the projection on the dual cone"

_INDEPENDENT = 1e-6
"""Squared distance of each unit gradient from the span of those before it that keeps all steps to the cone short."""

_VANISHING = 256.0
"""Errors of a cosine that the squared length of a direction must have, over the squared sum of its terms: a shorter one
would have a product of the wrong sign by more than 1e-9 of its length."""

_LONG = 1e3
"""Steps together, over the terms of the point, up to which those of dependent gradients are not looked at again."""

_STATIONARY = 16.0
"""Errors of a cosine, over its terms, that the products of a combination may have which vanishes."""

MANY, TOGETHER = 48, 192
"""Columns from which on their supports are guessed together, and from which on they are solved together."""


def project_dual_cone(
    gramian: torch.Tensor | npt.ArrayLike,
    weights: torch.Tensor | npt.ArrayLike,
    within: Sequence[int] | None = None,
    precision: Precision | None = None,
) -> tuple[Array, Certificate]:
    """Weights of the projection of ``sum_k u_k g_k`` on the cone ``{d : g_k . d >= 0}``, exactly.

    The projection is ``sum_k v_k g_k`` with v a minimiser of ``v' G v`` over ``v_k >= u_k`` where k is within, and
    ``v_k = u_k`` elsewhere (the dual program). In unit gradients, with C their cosines, s their norms and
    ``v = u + x / s``, it is the non-negative least-squares problem ``min_{x >= 0} (x + s u)' C (x + s u)``. Zero rows
    keep ``v_k = u_k``. A projection that cannot be told from zero is zero, and so are its weights.

    Args:
        gramian: (K, K) inner products, any dtype and device; the algebra is float64.
        weights: u, (K,).
        within: the k whose ``g_k . d >= 0`` is asked for. Default: all of them.
        precision: how exactly gradients and Gramian are known. Default: by the Gramian's dtype.

    Returns:
        v, (K,) float64, and its certificate: ``residual`` is the largest violation of ``g_k . d >= 0``, or of its
        equality where ``x_k > 0``, with what rounding may hide of it, in unit gradients over ``||d||``; ``gap`` is the
        duality gap over the squared length of the projected vector.

    Raises:
        SolverError: a violation is above 1e-10 and more than rounding.
    """
    matrix = read_gramian(gramian)
    precision = precision or Precision.behind(gramian)
    given = read_array(weights)
    if given.shape != matrix.shape[:1]:
        raise ValueError(
            f"weights must have shape ({len(matrix)},), one for each row of the Gramian, found {given.shape}"
        )
    if len(matrix) == 2 and (within is None or len(within) == 2) and given.min() >= 0.0:
        projected, residual = _two(matrix, given, precision)
        return projected, Certificate(residual, 0.0, "closed form")
    cosines, norms, live = normalize_live_rows(matrix)
    lengths = norms[live]
    point = given[live] * lengths
    result = given.copy()
    largest = float(np.abs(point).max(initial=0.0))
    chosen: Live = slice(None) if within is None else np.flatnonzero(np.isin(np.arange(len(norms))[live], within))
    if largest == 0.0 or not len(point[chosen]):
        return result, Certificate(0.0, 0.0, "nothing to project")
    point /= largest
    slopes = cosines.dot(point)
    squared = float(point.dot(slopes))
    steps = np.zeros_like(point)
    method = "no conflict"
    cone = _Cone(cosines, chosen, precision)
    if slopes[chosen].min() < 0.0:
        method = "active set"
        steps[chosen] = cone.steps(point, slopes)
    vanishes, certificate = cone.certify(point, steps, squared, method)
    if vanishes:
        return np.where(norms > 0.0, 0.0, result), certificate
    result[live] += steps * largest / lengths
    return result, certificate


def project_rows(
    gramian: torch.Tensor | npt.ArrayLike, precision: Precision | None = None
) -> tuple[Array, Certificate]:
    """The projections of all K gradients on the cone ``{d : g_k . d >= 0 for all k}``: row i of (K, K) weighs g_i's.

    See :func:`project_dual_cone`. Where the gradients conflict much, the projection of g_i is orthogonal to all others:
    a column of ``C⁻¹``, divided by its diagonal entry, and a proof if it is non-negative. Only the other columns need a
    program; many are solved, or their supports guessed, together. The certificate is that of the worst column.
    """
    matrix = read_gramian(gramian)
    precision = precision or Precision.behind(gramian)
    if len(matrix) == 2:
        one, other = (_two(matrix, unit, precision) for unit in np.eye(2))
        return np.array([one[0], other[0]]), Certificate(max(one[1], other[1]), 0.0, "closed form")
    cosines, norms, live = normalize_live_rows(matrix)
    result = np.eye(len(norms))
    if not len(cosines) or cosines.min() >= 0.0:
        return result, Certificate(precision.products, 0.0, "no conflict")
    cone = _Cone(cosines, slice(None), precision)
    steps = cone.columns(np.flatnonzero((cosines < 0.0).any(axis=0)))
    vanishing, certificate = cone.certify_columns(steps)
    scaled = np.eye(len(cosines)) + steps
    scaled[:, vanishing] = 0.0
    lengths = norms[live]
    scaled = scaled.T * lengths[:, None] / lengths
    if isinstance(live, slice):
        return scaled, certificate
    result[live[:, None], live] = scaled
    return result, certificate


class _Cone:
    """The directions that have no negative product with the chosen ones of some unit gradients."""

    def __init__(self, cosines: Array, chosen: Live, precision: Precision) -> None:
        self.cosines, self.chosen, self.precision = cosines, chosen, precision
        self.matrix = take_block(cosines, chosen)
        self.products = precision.products
        self.root, failed = load_lapack().dpotrf(cosines)
        self.independent = not failed and float(self.root.diagonal().min()) ** 2 > max(
            _INDEPENDENT, 16.0 * self.products
        )
        if not self.independent:
            # a Gramian that is indefinite shows itself how exact it is
            least = float(np.linalg.eigvalsh(cosines)[0])
            require_semidefinite(-least)
            self.products = max(self.products, -least)

    def steps(self, point: Array, slopes: Array, guess: Mask | None = None) -> Array:
        """x of the chosen gradients for a point in unit gradients and its products with all of them."""
        size, slopes = float(np.abs(point).sum()), slopes[self.chosen]
        if len(self.matrix) > FEW:
            found = exchange(self.matrix, slopes, guess)
            if found is not None and (self.independent or found.sum() <= _LONG * size):
                return found
        if self.independent:
            return one_at_a_time(self.matrix, self.root[:, self.chosen], -self.root.dot(point))
        return nonnegative_within(self.matrix, slopes, size, self.products, guess)

    def columns(self, columns: Indices) -> Array:
        """x for each of the gradients themselves, in columns; ``columns`` are those in conflict with any."""
        steps = np.zeros_like(self.cosines)
        if self.independent:
            columns = self._from_inverse(columns, steps)
        elif len(columns) >= MANY and self._from_stationary(steps):
            return steps
        guess = self.cosines[:, columns] < 0.0
        if len(columns) >= MANY:
            slopes = self.cosines[columns]
            if self.independent and len(columns) >= TOGETHER:
                values, solved = solve_together(self.cosines, slopes)
                steps[:, columns[solved]] = values[solved].T
                columns, guess = columns[~solved], values[~solved].T > 0.0
            else:
                looks = FEW_LOOKS if self.independent else PATIENT
                guess = guess_together(self.cosines.astype(np.float32), slopes.astype(np.float32), looks).T > 0.0
        unit = np.eye(len(self.cosines))
        for place, column in enumerate(columns):
            steps[:, column] = self.steps(unit[column], self.cosines[column], guess[:, place])
        return steps

    def _from_inverse(self, columns: Indices, steps: Array) -> Indices:
        """Steps that make a g_i orthogonal to all others, where these are it; the columns that are left.

        The gradient in conflict with most is looked at first where all of them would take long.
        """
        if len(columns) >= TOGETHER:
            hardest = int(self.cosines.sum(axis=1).argmin())
            one = load_lapack().dpotrs(self.root, np.eye(1, len(self.root), hardest)[0])[0]
            if np.delete(one, hardest).min() < 0.0:
                return columns
        half = load_lapack().dpotri(self.root)[0]  # the upper triangle of the inverse; the rest is zero as in the root
        guessed = (half + half.T) / half.diagonal()
        np.fill_diagonal(guessed, 0.0)
        solved = guessed.min(axis=0) >= 0.0
        found = columns[solved[columns]]
        steps[:, found] = guessed[:, found]
        return np.asarray(columns[~solved[columns]])

    def _from_stationary(self, steps: Array) -> bool:
        """Steps of all gradients from one vanishing combination of them with positive weights, if there is one.

        A direction along which no loss rises is then orthogonal to all. ``v_i > 0`` in ``sum_k v_k g_k = 0`` leaves
        ``v / v_i`` to be added to g_i. The projection of the sum of the unit gradients has such weights, if any do.
        """
        ones = np.ones(len(self.cosines))
        slopes = self.cosines.sum(axis=1)
        terms = ones + nonnegative_within(self.cosines, slopes, float(len(ones)), self.products)
        size = float(terms.sum())
        missed = float(np.abs(self.cosines.dot(terms)).max())
        # as far as their products with all of them tell; and those of each gradient with the shares of the shortest
        if missed > _STATIONARY * self.products * size or size * math.sqrt(self.products) > 1.0:
            return False
        steps[:] = terms[:, None] / terms
        np.fill_diagonal(steps, 0.0)
        return True

    def certify(self, point: Array, steps: Array, squared: float, method: str) -> tuple[bool, Certificate]:
        """Whether the projection vanishes as far as is known, and the certificate; ``squared`` is the point's."""
        vector = point + steps
        after = self.cosines.dot(vector)
        size = float(np.abs(point).sum() + steps.sum())
        length = self._length(float(vector.dot(after)), size)
        gap = abs(float(steps.dot(after))) / max(squared, 1e-300)
        if length == 0.0:
            return True, Certificate(0.0, gap, f"{method}, zero")
        after, steps = after[self.chosen], steps[self.chosen]
        worst = float(np.where(steps > 0.0, np.abs(after), -after).max())
        hidden = self.products * size
        return False, certify(_NAME, worst, hidden, length, gap, method, self._excused(hidden, length))

    def certify_columns(self, steps: Array) -> tuple[Mask, Certificate]:
        """:meth:`certify` for all the gradients themselves: which vanish, and the certificate of the worst."""
        after = self.cosines + self.cosines.dot(steps)
        sizes = 1.0 + steps.sum(axis=0)
        squares = after.diagonal() + (steps * after).sum(axis=0)
        vanishing = squares <= self._least(sizes)
        lengths = np.sqrt(np.where(vanishing, 1.0, squares))
        violations = np.maximum(np.where(steps > 0.0, np.abs(after), -after).max(axis=0), 0.0) / lengths
        hidden = self.products * sizes / lengths
        violations[vanishing] = hidden[vanishing] = 0.0
        worst = int((violations + hidden).argmax())
        gap = float(np.abs((steps * after).sum(axis=0)).max())
        excused = self._excused(float(hidden[worst]), 1.0)
        return vanishing, certify(
            _NAME, float(violations[worst]), float(hidden[worst]), 1.0, gap, "active set", excused
        )

    def _excused(self, hidden: float, length: float) -> float:
        """The violation of a gradient that depends on others as far as the Gramian tells, but not exactly."""
        return 4.0 * hidden + 16.0 * math.sqrt(self.products) * length

    def _length(self, squared: float, size: float) -> float:
        return math.sqrt(squared) if squared > self._least(size) else 0.0

    def _least(self, size: Array | float) -> Array | float:
        """Squared length below which a combination of terms of this size is nothing but rounding."""
        return max(_VANISHING * self.products, self.precision.vanishing) * size * size


def _two(matrix: Array, weights: Array, precision: Precision) -> tuple[Array, float]:
    """The closed form for two rows and non-negative weights, and the residual that rounding may hide.

    At most one of two rows conflicts with such a combination, and adding what makes it orthogonal frees the other.
    """
    (first, cross), (_, second) = matrix.tolist()
    length = math.sqrt(first) * math.sqrt(second)
    if not cross < 0.0 or length == 0.0:
        return weights, precision.products
    cosine = max(cross / length, -require_cosine(cross / length))
    one, two = weights.tolist()
    # of unit gradients
    a, b = one * math.sqrt(first), two * math.sqrt(second)
    to_a, to_b = max(a, -b * cosine), max(b, -a * cosine)
    squared = to_a * to_a + to_b * to_b + 2.0 * to_a * to_b * cosine
    size = to_a + to_b
    if squared <= max(_VANISHING * precision.products, precision.vanishing) * size * size:
        return np.zeros(2), 0.0
    cross = cosine * length
    return np.array([max(one, -two * cross / first), max(two, -one * cross / second)]), (
        precision.products * size / math.sqrt(squared)
    )
