"""The shortest convex combination of K gradients."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mtopt.solvers._certificate import Certificate
from mtopt.solvers._gramian import Array, as_gramian, unit_rows
from mtopt.solvers._nonnegative import nonnegative, require_cosine, semidefinite_root
from mtopt.solvers._two import Two, read_two

EPSILON = float(np.finfo(np.float64).eps)


def min_norm(gramian: torch.Tensor | npt.ArrayLike) -> tuple[Array, Certificate]:
    """Weights of the min-norm point of the convex hull of K gradients, exactly.

    Solves ``min_w w' G w`` over ``w >= 0, sum(w) = 1``. In unit gradients, with ``C`` their cosines, ``s`` their norms
    and ``v = s * w``, it is ``min v' C v`` over ``v >= 0, a' v = 1`` with ``a = 1 / s``; its solution is a positive
    multiple of the non-negative least-squares solution of ``[R; a'] v = [0; 1]``, ``R' R = C``. Two gradients have the
    closed form ``w_1 = clip((g_22 - g_12) / (g_11 + g_22 - 2 g_12), 0, 1)``.

    Linearly dependent gradients in float32 give a Gramian that rounding makes slightly indefinite. The program that is
    solved, and certified, is that of the nearest positive semi-definite cosines.

    Zero rows attain the minimum 0: they share the weight equally.

    Args:
        gramian: (K, K) inner products, any dtype and device; the algebra is float64.

    Returns:
        The weights, (K,) float64, and their certificate. With ``mu = w' G w``, its ``gap`` is
        ``(mu - min_i (G w)_i) / min_i g_ii`` and its ``residual`` the same violation measured in unit gradients.

    Raises:
        SolverError: the residual is above 1e-10, or the Gramian is more indefinite than rounding makes it.
    """
    matrix = as_gramian(gramian)
    two = read_two(matrix)
    if two is not None:
        return _closed_form(two)
    cosines, norms = unit_rows(matrix)
    if norms.min() == 0.0:
        zero = norms == 0.0
        return zero / zero.sum(), Certificate(0.0, 0.0, "zero row")
    inverse = norms.min() / norms  # in (0, 1]: the program does not change when every row is scaled alike
    if len(norms) == 1:
        return np.ones(1), Certificate(0.0, 0.0, "closed form")
    root, semidefinite = semidefinite_root(cosines)
    target = np.zeros(len(norms) + 1)
    target[-1] = 1.0
    stacked = np.concatenate((root, inverse[None]))
    scaled = nonnegative(semidefinite + inverse * inverse[:, None], stacked, target)
    scaled /= inverse.dot(scaled)
    certificate = _certify(semidefinite, inverse, scaled)
    certificate.require("the min-norm program")
    weights = inverse * scaled
    return weights / weights.sum(), certificate


def _closed_form(two: Two) -> tuple[Array, Certificate]:
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
    certificate = _certify_two(cosine, one_inverse, other_inverse, one, other)
    certificate.require("the min-norm program")
    return np.array([one * one_inverse, other * other_inverse]), certificate


def _certify_two(cosine: float, one_inverse: float, other_inverse: float, one: float, other: float) -> Certificate:
    """:func:`_certify` in plain floats."""
    one_slope, other_slope = one + cosine * other, cosine * one + other
    value, size = one * one_slope + other * other_slope, one + other
    rounding = 4.0 * EPSILON * size**2
    return Certificate(
        residual=max(
            (value - rounding) * one_inverse - one_slope, (value - rounding) * other_inverse - other_slope, 0.0
        )
        / size,
        gap=max(value - one_slope / one_inverse, value - other_slope / other_inverse, 0.0),
        method="closed form",
    )


def _certify(cosines: Array, inverse: Array, scaled: Array) -> Certificate:
    slopes = cosines.dot(scaled)
    value, size = scaled.dot(slopes), scaled.sum()
    violation = value * inverse - slopes  # positive where a row would still shorten the point
    # two opposite gradients that are millions of times longer than a third leave only rounding of the value
    rounding = 4.0 * EPSILON * size**2 * inverse
    return Certificate(
        residual=float(max((violation - rounding).max(), 0.0) / size),
        gap=float(max((violation / inverse).max(), 0.0)),
        method="nnls",
    )
