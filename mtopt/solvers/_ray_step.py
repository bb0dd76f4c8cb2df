"""The best direction among those that lower the losses at rates given up to a multiple of one vector."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mtopt.linalg import DOUBLE_PRECISION, Array, Precision, normalize_gramian, take_semidefinite_root
from mtopt.solvers._certificate import Certificate, certify

Interval = tuple[float, float]


class _Step(NamedTuple):
    scaled: Array
    """x."""
    wanted: Array
    """``C x``, the rates over the norms."""
    terms: float
    """The largest sum of the moduli of what was added up in ``wanted``."""
    interval: Interval | None
    """Between which slopes ``(u / s) . x`` must be; None where kappa is not free."""
    growth: float = 0.0
    """What kappa grows by with each unit of the slope. The direction moves by the square root of that."""


def ray_step(matrix: Array, target: Array, ray: Array, precision: Precision) -> tuple[Array, Certificate]:
    """Weights of ``argmin_d ||d||² / 2 - min_k g_k . d`` under ``J d = y + kappa u``, kappa free.

    The weights w of the shortest d with these rates solve ``G w = y + kappa u``, and ``u . w`` is the slope that the
    objective's linear part must have at kappa. In unit gradients, with cosines C, norms s and ``w = x / s``, that is
    one linear system in x and kappa, bordered by ``u / s``, which is regular at Pareto-stationary points, too. kappa
    grows with the slope, and the slope of ``min_k (y_k + kappa u_k)`` falls with kappa: they meet in one point.

    Where the system is singular not all rates can be had: ``N' (J d / s) = 0`` for the null space N of the cosines, and
    ``J d = 0`` in zero rows. Those rates are then aimed at that are nearest to y across u.

    Args:
        matrix: (K, K) inner products.
        target: y, (K,), orthogonal to u.
        ray: u, (K,), a positive unit vector.
        precision: of the gradients and the Gramian: which cosines count as dependent, and whether they allow the ray.

    Returns:
        The weights, (K,), and the certificate: ``residual`` is the larger of the error of a rate in unit gradients,
        ``|u_k . d|`` missed, and of what the error of the slope moves d by, over ``||d||``; what the cosines leave open
        included.

    Raises:
        SolverError: the error is more than 1e-10 above what is left open, or the Gramian is not positive semi-definite.
    """
    cosines, norms = normalize_gramian(matrix)
    live = np.flatnonzero(norms)
    weights = np.zeros_like(norms)
    if not len(live):
        return weights, Certificate(0.0, None, "zero rows")
    cosines = take_semidefinite_root(cosines[live[:, None], live])[1]
    lengths = norms[live]
    step = None
    if len(live) == len(norms):
        step = _bordered(cosines, target / lengths, ray / lengths, target, ray, precision.rank_share(len(norms)))
    if step is None:
        step = _degenerate(cosines, norms, live, target, ray, precision)
    weights[live] = step.scaled / lengths
    method = "closed form" if step.interval else "closed form, not all rates attainable"
    return weights, _certify(cosines, step, ray[live] / lengths, precision, method)


def _bordered(
    matrix: Array, right: Array, border: Array, levels: Array, slopes: Array, tolerance: float
) -> _Step | None:
    """The step with ``matrix x = right + kappa border``; None if the system is singular."""
    size = len(matrix)
    length = float(np.linalg.norm(border))
    system = np.zeros((size + 1, size + 1))
    system[:size, :size] = matrix
    system[:size, size] = system[size, :size] = border / length
    moduli = np.abs(np.linalg.eigvalsh(system))
    if moduli.min() <= tolerance * moduli.max():
        return None
    sides = np.zeros((size + 1, 2))
    sides[:size, 0] = right
    sides[size, 1] = 1.0 / length
    fixed, growing = -_refined(system, sides)[size] / length  # kappa at slope 0, and for each unit of it
    slope, interval = _meeting(levels, slopes, fixed, max(growing, 0.0))
    sides[size, 0] = slope / length
    found = _refined(system, sides[:, 0])
    along = -found[size] / length * border
    terms = float((np.abs(right) + np.abs(along)).max())
    return _Step(found[:size], right + along, terms, interval, max(growing, 0.0))


def _refined(system: Array, right: Array) -> Array:
    """The solution of a linear system, with a small error in every equation by itself."""
    found = np.linalg.solve(system, right)
    for _ in range(2):
        found = found + np.linalg.solve(system, right - system @ found)
    return np.asarray(found)


def _meeting(levels: Array, slopes: Array, start: float, growth: float) -> tuple[float, Interval]:
    """The slope of ``min_k (levels_k + kappa slopes_k)`` at ``kappa = start + growth * slope``.

    Also the least and the largest slope of a subgradient there. From the left the lowest line is the steepest, and each
    crossing leads to one less steep.
    """
    current = int(np.lexsort((levels, -slopes))[0])
    reached, steepest = -np.inf, slopes[current]
    while True:
        here = start + growth * slopes[current]
        later = np.flatnonzero(slopes < slopes[current])
        crossings = (levels[later] - levels[current]) / (slopes[current] - slopes[later])
        if not len(later) or max(here, reached) <= crossings.min():
            break
        reached, steepest = float(crossings.min()), slopes[current]
        current = int(later[np.lexsort((slopes[later], crossings))[0]])
    low, high = float(slopes[current]), float(steepest)
    if here >= reached:
        return low, (low, low)
    return (min(max((reached - start) / growth, low), high) if growth > 0.0 else high), (low, high)


def _degenerate(
    cosines: Array, norms: Array, live: npt.NDArray[np.intp], target: Array, ray: Array, precision: Precision
) -> _Step:
    """The step with rates that can be had. What null vectors have to do with these is known less well than they are."""
    tolerance, rounding = precision.rank_share(len(norms)), len(norms) * precision.linear
    values, vectors = np.linalg.eigh(cosines)
    kept = values > tolerance * values[-1]
    basis, values, lengths = vectors[:, kept], values[kept], norms[live]
    missing = len(norms) - len(live)
    conditions = np.zeros((int((~kept).sum()) + missing, len(norms)))
    null = vectors[:, ~kept]
    # what is an entry's rounding would be a condition of its own on the rate of a short gradient
    null = np.where(np.abs(null) > len(norms) * precision.linear / values.min(), null, 0.0)
    conditions[missing:, live] = (null / lengths[:, None]).T
    conditions[:missing, np.flatnonzero(norms == 0.0)] = np.eye(missing)
    conditions /= np.linalg.norm(conditions, axis=1, keepdims=True)
    _, singular, right = np.linalg.svd(conditions)
    space = right[int((singular > 1e-14 * singular[0]).sum()) :].T
    rates = np.zeros_like(norms)
    if space.shape[1]:
        left, found, right = np.linalg.svd(space - np.outer(ray, ray @ space), full_matrices=False)
        known = found > rounding  # of columns that were orthonormal: the rest is the ray, which is free
        rates = space @ (right[known].T @ ((left[:, known].T @ target) / found[known]))
    given = basis.T @ (rates[live] / lengths)
    if np.linalg.norm(ray - space @ (space.T @ ray)) <= rounding:  # a multiple of the ray may be added
        border = basis.T @ (ray[live] / lengths)
        step = _bordered(np.diag(values), given, border, rates, ray, tolerance)
        if step is not None:
            return _Step(basis @ step.scaled, basis @ step.wanted, step.terms, step.interval, step.growth)
    return _Step(basis @ (given / values), basis @ given, float(np.abs(given).max(initial=0.0)), None)


def _certify(cosines: Array, step: _Step, border: Array, precision: Precision, method: str) -> Certificate:
    reached = cosines @ step.scaled
    length = math.sqrt(max(float(step.scaled @ reached), 0.0))
    missed = float(np.abs(reached - step.wanted).max())
    if step.interval is not None:
        low, high = step.interval
        slope = float(border @ step.scaled)
        missed = max(missed, math.sqrt(step.growth) * max(low - slope, slope - high, 0.0))
    moduli = float(np.abs(step.scaled).sum())
    if length == 0.0:
        return Certificate(0.0 if moduli == 0.0 else math.inf, None, method)
    hidden = precision.products * moduli + DOUBLE_PRECISION.products * step.terms  # wishes are rounded, too
    return certify("FERERO's program", missed, hidden, length, None, method, excused=16.0 * hidden)
