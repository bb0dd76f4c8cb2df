"""Gramians to solve for, and judges of the answers that share no code with the solvers."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

KINDS = ("gaussian", "rank_deficient", "nearly_parallel", "nearly_opposite", "duplicated", "stationary")


def drawn_jacobian(kind: str, seed: int, rows: int, columns: int) -> Array:
    """A (rows, columns) Jacobian of the given kind; ``columns`` may be fewer than ``rows`` in any of them."""
    rng = np.random.default_rng(seed)
    jacobian = rng.standard_normal((rows, columns))
    if kind == "rank_deficient":
        rank = max(1, min(rows, columns) // 2)
        jacobian = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
    elif kind == "nearly_parallel":
        jacobian = rng.standard_normal(columns) + 10.0 ** rng.uniform(-12, -2) * jacobian
    elif kind == "nearly_opposite":
        signs = rng.choice([-1.0, 1.0], (rows, 1))
        jacobian = signs * (rng.standard_normal(columns) + 10.0 ** rng.uniform(-12, -2) * jacobian)
    elif kind == "duplicated":
        jacobian = jacobian[rng.integers(0, rows, rows)]
    elif kind == "stationary":  # zero is in the convex hull
        jacobian[-1] = -(rng.dirichlet(np.ones(rows - 1)) @ jacobian[:-1]) if rows > 1 else 0.0
    return jacobian


def spread_over_decades(jacobian: Array, seed: int, decades: float) -> Array:
    """``jacobian`` with its rows multiplied by factors up to ``10**decades`` apart."""
    rng = np.random.default_rng(seed)
    return jacobian * 10.0 ** rng.uniform(-decades / 2, decades / 2, (len(jacobian), 1))


def left_open(jacobian: Array, weights: Array) -> float:
    """What float64 inner products leave open of ``u_k . d``, over ``||d||``: their rounding times the weights of unit
    gradients, some times over."""
    moduli = np.abs(weights) @ np.linalg.norm(jacobian, axis=1)
    length = np.linalg.norm(weights @ jacobian)
    return float(32.0 * np.finfo(np.float64).eps * moduli / length) if length > 0.0 else 0.0


def exact_residual(gramian: Array, weights: Array) -> float:
    """The KKT residual of ``weights`` in unit gradients, from exact rational arithmetic on the given numbers.

    ``max_i (mu - (G w)_i) / (s_i * sum_j w_j s_j)`` with ``mu = w' G w`` and norms s: how fast moving towards a unit
    gradient would still shorten the point, relative to the largest such speed. Weights that are no point of the
    simplex (to rounding) have an infinite one.
    """
    if (weights < 0).any() or abs(weights.sum() - 1.0) > 1e-12:
        return float("inf")
    matrix = [[Fraction(float(x)) for x in row] for row in gramian]
    exact = [Fraction(float(w)) for w in weights]
    slopes = [sum((g * w for g, w in zip(row, exact, strict=True)), Fraction(0)) for row in matrix]
    value = sum((w * s for w, s in zip(exact, slopes, strict=True)), Fraction(0))
    norms = np.sqrt(gramian.diagonal())
    size = float(weights @ norms)
    return max(float(value - slope) / (norm * size) for slope, norm in zip(slopes, norms, strict=True))


def nearest_by_enumeration(point: Array) -> Array:
    """The point of the simplex nearest to ``point``, by trying every support."""
    best, distance = np.empty(0), np.inf
    for size in range(1, len(point) + 1):
        for support in itertools.combinations(range(len(point)), size):
            chosen = list(support)
            candidate = np.zeros(len(point))
            candidate[chosen] = point[chosen] - (point[chosen].sum() - 1.0) / size
            if (candidate >= 0).all() and np.linalg.norm(candidate - point) < distance:
                best, distance = candidate, float(np.linalg.norm(candidate - point))
    return best
