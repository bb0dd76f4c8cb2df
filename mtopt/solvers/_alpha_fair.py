"""Weights that share out the descent by alpha-fairness; Nash bargaining is alpha = 1."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from mtopt.linalg import (
    Array,
    Precision,
    TwoGradients,
    load_lapack,
    normalize_live_rows,
    read_gramian,
    read_two,
)
from mtopt.solvers._certificate import Certificate, certify
from mtopt.solvers._min_norm import min_norm

_STEPS = 1000
"""Newton steps; four to eight are usual, some hundreds when alpha is 10 and the rows span twelve decades."""

_FLOOR = 0.01
"""A step leaves at least this share of a weight."""

EPSILON = float(np.finfo(np.float64).eps)


def alpha_fair(
    gramian: torch.Tensor | npt.ArrayLike, alpha: float = 1.0, precision: Precision | None = None
) -> tuple[Array, Certificate]:
    """The positive weights with ``G w = w**(-1 / alpha)``, exactly.

    They minimise the strictly convex ``w' G w / 2 - sum_k w_k**(1 - 1/alpha) / (1 - 1/alpha)`` (at alpha = 1, with
    ``sum_k log w_k``), by Newton's method on the diagonally scaled problem, damped weight by weight. One gradient and,
    at alpha = 1, two have closed forms: ``w_k = 1 / (s_k sqrt(1 + c))`` with norms s and the cosine c.

    Zero rows have no solution and get weight 0. At a Pareto-stationary point there is none either, and all weights are
    0. Points count as such where the combination of the gradients is shorter than they are known to be.

    Args:
        gramian: (K, K) inner products, any dtype and device; the algebra is float64.
        alpha: > 0.
        precision: of the gradients and the Gramian. Default: that of its dtype.

    Returns:
        The weights, (K,) float64, and their certificate: ``residual`` is the largest error of a projection,
        ``|u_k . d - w_k**(-1 / alpha) / ||g_k|||`` for the unit gradient u_k, over ``||d||``, what the Gramian does not
        know of it included; there is no ``gap``.

    Raises:
        SolverError: the error is more than 1e-10 above what the Gramian leaves open.
    """
    precision = precision or Precision.behind(gramian)
    matrix = read_gramian(gramian)
    if alpha == 1.0:
        two = read_two(matrix)
        if two is not None:
            return _closed_form(two, precision)
    cosines, norms, live = normalize_live_rows(matrix)
    weights = np.zeros_like(norms)
    if not len(cosines):
        return weights, Certificate(0.0, None, "zero rows")
    largest = norms.max()
    scales = norms[live] / largest  # G / largest² has the solution w * largest**(2 alpha / (1 + alpha))
    found: Array | None
    if len(cosines) == 1:
        found, method = np.ones(1), "closed form"
    else:
        found, method = _newton(cosines, scales, alpha, precision), "Newton"
    if found is None:
        return weights, _STATIONARY
    vector = scales * found
    slopes = cosines.dot(vector)
    error = float(np.abs(slopes - found ** (-1.0 / alpha) / scales).max())
    moduli, length = float(vector.sum()), math.sqrt(vector.dot(slopes))
    if precision.products * moduli > _DOUBTFUL * length and _stationary(cosines, precision):
        return weights, _STATIONARY
    certificate = _certify(error, moduli, length, precision, method)
    weights[live] = found * largest ** (-2.0 * alpha / (1.0 + alpha))
    return weights, certificate


_STATIONARY = Certificate(0.0, None, "Pareto-stationary")

_DOUBTFUL = 1e-10
"""What rounding may hide of a projection, over the direction's length, from which it is asked whether there is one."""


def _stationary(cosines: Array, precision: Precision) -> bool:
    """Whether a combination of the gradients vanishes: the program has no solution then, but weights that go to
    infinity with lengths far apart look like one."""
    terms, _ = min_norm(cosines, precision)
    return float(terms.dot(cosines).dot(terms)) <= precision.rank_share(len(terms))


def _closed_form(two: TwoGradients, precision: Precision) -> tuple[Array, Certificate]:
    """Nash bargaining of two gradients."""
    if not 1.0 + two.cosine > 2.0 * precision.rank_share(2):  # the squared length of u_1 + u_2 is twice this
        return np.zeros(2), _STATIONARY
    equal = 1.0 / math.sqrt(1.0 + two.cosine)  # s_k w_k
    certificate = _certify(
        abs(equal * (1.0 + two.cosine) - 1.0 / equal), 2.0 * equal, math.sqrt(2.0), precision, "closed form"
    )
    return np.array([equal / two.first / two.largest, equal / two.second / two.largest]), certificate


def _certify(error: float, moduli: float, length: float, precision: Precision, method: str) -> Certificate:
    """The certificate of an answer with this ``error`` of a projection, weights of unit gradients that add up to
    ``moduli``, and this length."""
    hidden = precision.products * moduli
    return certify("the alpha-fair program", error, hidden, length, None, method, excused=16.0 * hidden)


def _newton(cosines: Array, scales: Array, alpha: float, precision: Precision) -> Array | None:
    """The weights, as good as they get; None where a combination of the gradients vanishes."""
    dposv = load_lapack().dposv
    power = 1.0 / alpha
    vanishing = precision.rank_share(len(scales))
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
        if not float(vector.dot(slopes)) > vanishing * float(vector.sum()) ** 2:
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
