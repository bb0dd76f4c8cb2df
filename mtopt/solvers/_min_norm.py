"""The shortest convex combination of K gradients."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from mtopt._errors import SolverError
from mtopt.linalg import (
    Array,
    Precision,
    TwoGradients,
    normalize_gramian,
    read_gramian,
    read_two,
    require_cosine,
    take_semidefinite_root,
)
from mtopt.solvers._active_set import nonnegative_within
from mtopt.solvers._certificate import Certificate, certify
from mtopt.solvers._nonnegative import nonnegative

_NAME = "the min-norm program"

_INDEPENDENT = 1e-6
"""Squared distance of each unit gradient from the span of those before it that leaves no combination near zero."""


def min_norm(gramian: torch.Tensor | npt.ArrayLike, precision: Precision | None = None) -> tuple[Array, Certificate]:
    """Weights of the min-norm point of the convex hull of K gradients, exactly.

    Solves ``min_w w' G w`` over ``w >= 0, sum(w) = 1``. In unit gradients, with ``C`` their cosines, ``s`` their norms
    and ``v = s * w``, it is ``min v' C v`` over ``v >= 0, a' v = 1`` with ``a = 1 / s``; its solution is a positive
    multiple of the non-negative least-squares solution of ``[R; a'] v = [0; 1]``, ``R' R = C``. Two gradients have the
    closed form ``w_1 = clip((g_22 - g_12) / (g_11 + g_22 - 2 g_12), 0, 1)``.

    Linearly dependent gradients in float32 give a Gramian that rounding makes slightly indefinite. The program that is
    solved, and certified, is that of the nearest positive semi-definite cosines. Where a combination of the unit
    gradients vanishes, whatever their lengths, so does the one of the gradients.

    Zero rows attain the minimum 0: they share the weight equally.

    Args:
        gramian: (K, K) inner products, any dtype and device; the algebra is float64.
        precision: how exactly gradients and Gramian are known. Default: by the Gramian's dtype.

    Returns:
        The weights, (K,) float64, and their certificate. With ``mu = w' G w``, its ``gap`` is
        ``(mu - min_i (G w)_i) / min_i g_ii`` and its ``residual`` the same violation in unit gradients, with what
        rounding may hide of it, over ``||d||``. Where d cannot be told from zero it is over the shortest gradient's
        length, and what d may be long, over the longest one's, is added.

    Raises:
        SolverError: a violation is above 1e-10 and more than rounding, or the Gramian is more indefinite than rounding
            makes it.
    """
    matrix = read_gramian(gramian)
    precision = precision or Precision.behind(gramian)
    products = precision.products
    two = read_two(matrix)
    if two is not None:
        return _closed_form(two, precision)
    cosines, norms = normalize_gramian(matrix)
    if norms.min() == 0.0:
        zero = norms == 0.0
        return zero / zero.sum(), Certificate(0.0, 0.0, "zero row")
    inverse = norms.min() / norms  # in (0, 1]: the program does not change when every row is scaled alike
    if len(norms) == 1:
        return np.ones(1), Certificate(0.0, 0.0, "closed form")
    root, semidefinite = take_semidefinite_root(cosines)
    stationary = stationary_terms(cosines, root, semidefinite, products)
    scaled = _shortest(root, semidefinite, inverse)
    if stationary is not None:
        # of combinations that vanish the one with the least of long gradients: they leave their own size of rounding
        among_unit = stationary / inverse.dot(stationary)
        if among_unit.sum() <= scaled.sum() or not _vanishes(scaled, cosines, products):
            scaled = among_unit
    try:
        certificate = _certify(semidefinite, inverse, scaled, precision)
    except SolverError:  # SciPy takes slopes near 1e-14 for none, and the direction may be that short
        scaled = _shortest_within(semidefinite, inverse, products)
        certificate = _certify(semidefinite, inverse, scaled, precision)
    weights = inverse * scaled
    return weights / weights.sum(), certificate


def stationary_terms(cosines: Array, root: Array, semidefinite: Array, products: float) -> Array | None:
    """``v >= 0`` that sums to one and whose combination vanishes, where there is one: Pareto-stationary gradients.

    Whether they are does not depend on their lengths, and is not to be lost where these differ by many decades. The
    combination's products with all the gradients tell: they are known to more digits than its length.
    """
    if semidefinite is cosines and float(root.diagonal().min()) ** 2 > _INDEPENDENT:
        return None
    terms = _shortest(root, semidefinite, np.ones(len(root)))
    return terms if _vanishes(terms, cosines, products) else None


def _vanishes(terms: Array, cosines: Array, products: float) -> bool:
    """Whether a combination of unit gradients cannot be told from zero."""
    return float(np.abs(cosines.dot(terms)).max()) <= 16.0 * products * float(terms.sum())


def _shortest(root: Array, semidefinite: Array, edge: Array) -> Array:
    """The ``v >= 0`` with ``a' v = 1`` that makes ``R v`` shortest."""
    target = np.zeros(len(root) + 1)
    target[-1] = 1.0
    found = nonnegative(semidefinite + edge * edge[:, None], np.concatenate((root, edge[None])), target)
    return np.asarray(found / edge.dot(found))


def _shortest_within(semidefinite: Array, edge: Array, products: float) -> Array:
    """:func:`_shortest`, to what the cosines are known to."""
    found = nonnegative_within(semidefinite + edge * edge[:, None], -edge, 1.0, products)
    return np.asarray(found / edge.dot(found))


def _closed_form(two: TwoGradients, precision: Precision) -> tuple[Array, Certificate]:
    """The answer for two gradients: in unit gradients, with v = s w, ``v_1 : v_2 = (s_2 - c s_1) : (s_1 - c s_2)``.

    Formed like this, and not as ``w_2 = 1 - w_1``, the smaller weight keeps its digits when one gradient is a million
    times the other.
    """
    first, second, cosine, _ = two
    bound = require_cosine(cosine)
    cosine = min(max(cosine, -bound), bound)
    one, other = max(second - cosine * first, 0.0), max(first - cosine * second, 0.0)
    if one == other == 0.0:  # the same gradient twice: any weights
        one = other = 1.0
    shortest = min(first, second)
    one_inverse, other_inverse = shortest / first, shortest / second
    total = one * one_inverse + other * other_inverse
    one, other = one / total, other / total
    certificate = _certify_two(cosine, one_inverse, other_inverse, one, other, precision)
    return np.array([one * one_inverse, other * other_inverse]), certificate


def _certify_two(
    cosine: float, one_inverse: float, other_inverse: float, one: float, other: float, precision: Precision
) -> Certificate:
    """:func:`_certify` in plain floats."""
    one_slope, other_slope = one + cosine * other, cosine * one + other
    value, size = one * one_slope + other * other_slope, one + other
    missed = max(value * one_inverse - one_slope, value * other_inverse - other_slope)
    gap = max(value - one_slope / one_inverse, value - other_slope / other_inverse, 0.0)
    hidden = precision.products * size * (1.0 + size)
    shortest = min(one_inverse, other_inverse)
    return _certified(missed, hidden, value, size, precision, shortest, gap, "closed form")


def _certify(cosines: Array, inverse: Array, scaled: Array, precision: Precision) -> Certificate:
    slopes = cosines.dot(scaled)
    value, size = float(scaled.dot(slopes)), float(scaled.sum())
    violation = value * inverse - slopes  # positive where a row would still shorten the point
    # two opposite gradients that are millions of times longer than a third leave only rounding of the value
    hidden = precision.products * size * (1.0 + size)
    gap = float(max((violation / inverse).max(), 0.0))
    return _certified(float(violation.max()), hidden, value, size, precision, float(inverse.min()), gap, "nnls")


def _certified(
    violation: float,
    hidden: float,
    squared: float,
    size: float,
    precision: Precision,
    shortest: float,
    gap: float,
    method: str,
) -> Certificate:
    """The certificate: in units of the direction's length, or of the shortest gradient's where it has none.

    It has none where its square is rounding; what it may have over the longest gradient's is added then.
    """
    if squared > 4.0 * precision.products * size**2:
        return certify(_NAME, violation, hidden, min(math.sqrt(squared), 1.0), gap, method)
    found = certify(_NAME, violation, hidden, 1.0, gap, method)
    return Certificate(found.residual + precision.short * size * shortest, found.gap, found.method)
