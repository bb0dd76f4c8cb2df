"""Weights that share out the descent by alpha-fairness; Nash bargaining is alpha = 1."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from mtopt.solvers._certificate import Certificate
from mtopt.solvers._gramian import Array, as_gramian, lapack, live_rows
from mtopt.solvers._min_norm import min_norm
from mtopt.solvers._two import Two, read_two

_STATIONARY = 1e-14
"""Squared length of a combination of K unit gradients, over K times the squared sum of its weights: rounding alone."""

_STEPS = 1000
"""Newton steps; four to eight are usual, some hundreds when alpha is 10 and the rows span twelve decades."""

_FLOOR = 0.01
"""A step leaves at least this share of a weight."""

EPSILON = float(np.finfo(np.float64).eps)


def alpha_fair(gramian: torch.Tensor | npt.ArrayLike, alpha: float = 1.0) -> tuple[Array, Certificate]:
    """The positive weights with ``G w = w**(-1 / alpha)``, exactly.

    They minimise the strictly convex ``w' G w / 2 - sum_k w_k**(1 - 1/alpha) / (1 - 1/alpha)`` (at alpha = 1, with
    ``sum_k log w_k``), by Newton's method on the diagonally scaled problem, damped weight by weight. One gradient and,
    at alpha = 1, two have closed forms: ``w_k = 1 / (s_k sqrt(1 + c))`` with norms s and the cosine c.

    Zero rows have no solution and get weight 0. At a Pareto-stationary point there is none either: the weights are then
    proportional to those of :func:`min_norm`, whose combination is zero.

    Args:
        gramian: (K, K) inner products, any dtype and device; the algebra is float64.
        alpha: > 0.

    Returns:
        The weights, (K,) float64, and their certificate: ``residual`` is the largest of
        ``|w_k (G w)_k - w_k**(1 - 1/alpha)|`` over the size of the terms in it; there is no ``gap``.

    Raises:
        SolverError: the residual is above 1e-10.
    """
    matrix = as_gramian(gramian)
    if alpha == 1.0:
        two = read_two(matrix)
        if two is not None and 1.0 + two.cosine > 4.0 * _STATIONARY:
            return _closed_form(two)
    cosines, norms, live = live_rows(matrix)
    weights = np.zeros_like(norms)
    if not len(cosines):
        return weights, Certificate(0.0, None, "zero rows")
    largest = norms.max()
    scales = norms[live] / largest  # G / largest² has the solution w * largest**(2 alpha / (1 + alpha))
    found: Array | None
    if len(cosines) == 1:
        found, method = np.ones(1), "closed form"
    else:
        found, method = _newton(cosines, scales, alpha), "Newton"
    if found is None:
        found, certificate = min_norm(cosines * scales * scales[:, None])
        certificate = Certificate(certificate.residual, None, "Pareto-stationary")
    else:
        certificate = _certify(cosines, scales, found, alpha, method)
        certificate.require("the alpha-fair program")
    weights[live] = found * largest ** (-2.0 * alpha / (1.0 + alpha))
    return weights, certificate


def _closed_form(two: Two) -> tuple[Array, Certificate]:
    """Nash bargaining of two gradients that are not opposite."""
    equal = 1.0 / math.sqrt(1.0 + two.cosine)  # s_k w_k
    product = equal * (equal + two.cosine * equal)
    size = 1.0 + equal * equal * (1.0 + abs(two.cosine))
    certificate = Certificate(abs(product - 1.0) / size, None, "closed form")
    certificate.require("the alpha-fair program")
    return np.array([equal / two.first / two.largest, equal / two.second / two.largest]), certificate


def _newton(cosines: Array, scales: Array, alpha: float) -> Array | None:
    """The weights, as good as they get; None where a combination of the gradients vanishes."""
    dposv = lapack().dposv
    power = 1.0 / alpha
    magnitudes = np.abs(cosines)
    diagonal = np.arange(len(scales))
    weights = scales ** (-2.0 * alpha / (1.0 + alpha))  # exact for orthogonal gradients
    vector = scales * weights
    length = float(vector.dot(cosines).dot(vector))
    if length > 0.0:  # the best multiple of it
        weights = weights * ((weights ** (1.0 - power)).sum() / length) ** (1.0 / (1.0 + power))
    for _ in range(_STEPS):
        vector = scales * weights
        slopes = cosines.dot(vector)
        wanted = weights ** (1.0 - power)
        if not float(vector.dot(slopes)) > _STATIONARY * len(scales) * float(vector.sum()) ** 2:
            return None
        error = np.abs(vector * slopes - wanted)
        if (error <= 1e-13 * wanted + 8.0 * EPSILON * vector * magnitudes.dot(vector)).all():
            break
        # Newton's system in relative changes, scaled so that its eigenvalues start at 1 / alpha
        root = np.sqrt(wanted)
        edge = vector / root
        system = cosines * edge
        system *= edge[:, None]
        system[diagonal, diagonal] += power
        right = root - edge * slopes
        _, change, failed = dposv(system, right)
        if failed:  # indefinite by rounding, and the weights so large that rounding decides
            return None
        decrement = float(change.dot(right))
        weights = weights * _factors(change / root, decrement, cosines, vector, slopes, wanted, power)
    return weights


def _factors(
    change: Array, decrement: float, cosines: Array, vector: Array, slopes: Array, wanted: Array, power: float
) -> Array:
    """What to multiply the weights with: the full step, floored, or a part of it that makes the objective fall."""
    share = 1.0
    factors = np.maximum(1.0 + change, _FLOOR)
    if decrement <= 1e-10 * float(wanted.sum()):
        return factors
    while True:
        moved = vector * (factors - 1.0)
        logs = np.log(factors)
        gain = logs if power == 1.0 else np.expm1((1.0 - power) * logs) / (1.0 - power)
        if float(moved.dot(slopes) + 0.5 * moved.dot(cosines).dot(moved) - wanted.dot(gain)) < 0.0 or share < 1e-8:
            return factors
        share *= 0.5
        # from here on along the Newton direction itself, which descends
        longest = min(share, 0.95 / max(float(-change.min()), 1e-300))
        factors = 1.0 + longest * change


def _certify(cosines: Array, scales: Array, weights: Array, alpha: float, method: str) -> Certificate:
    vector = scales * weights
    wanted = weights ** (1.0 - 1.0 / alpha)
    size = wanted + vector * np.abs(cosines).dot(vector)
    return Certificate(
        residual=float((np.abs(vector * (cosines.dot(vector)) - wanted) / size).max()), gap=None, method=method
    )
