"""Projection on the cone of directions along which no loss rises."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from mtopt.solvers._certificate import Certificate
from mtopt.solvers._gramian import Array, Live, as_array, as_gramian, block, lapack, live_rows
from mtopt.solvers._nonnegative import (
    Indices,
    Mask,
    nonnegative,
    nonnegative_columns,
    require_cosine,
    semidefinite_root,
)

_SOLVED = 1e-12
"""KKT residual above which a projection read off the inverse is computed anew."""


def project_dual_cone(
    gramian: torch.Tensor | npt.ArrayLike,
    weights: torch.Tensor | npt.ArrayLike,
    within: Sequence[int] | None = None,
) -> tuple[Array, Certificate]:
    """Weights of the projection of ``sum_k u_k g_k`` on the cone ``{d : g_k . d >= 0}``, exactly.

    The projection is ``sum_k v_k g_k`` with v the minimiser of ``v' G v`` over ``v_k >= u_k`` where k is within, and
    ``v_k = u_k`` elsewhere (the dual program). In unit gradients, with C their cosines, s their norms and
    ``v = u + x / s``, it is the non-negative least-squares problem ``min_{x >= 0} (x + s u)' C (x + s u)``. Zero rows
    keep ``v_k = u_k``.

    Args:
        gramian: (K, K) inner products, any dtype and device; the algebra is float64.
        weights: u, (K,).
        within: the k whose ``g_k . d >= 0`` is asked for. Default: all of them.

    Returns:
        v, (K,) float64, and its certificate: ``residual`` is the largest violation of ``g_k . d >= 0``, or of its
        equality where ``x_k > 0``, in unit gradients over ``sum_k s_k |v_k|``; ``gap`` is the duality gap over the
        squared length of the projected vector.

    Raises:
        SolverError: the residual is above 1e-10.
    """
    matrix = as_gramian(gramian)
    given = as_array(weights)
    if given.shape != matrix.shape[:1]:
        raise ValueError(f"weights must have shape ({len(matrix)},), one a row of the Gramian, found {given.shape}")
    if len(matrix) == 2 and (within is None or len(within) == 2) and given.min() >= 0.0:
        return _two(matrix, given), Certificate(0.0, 0.0, "closed form")
    cosines, norms, live = live_rows(matrix)
    lengths = norms[live]
    point = given[live] * lengths
    result = given.copy()
    largest = float(np.abs(point).max(initial=0.0))
    chosen: Live = slice(None) if within is None else np.flatnonzero(np.isin(np.arange(len(norms))[live], within))
    if largest == 0.0 or not len(point[chosen]):
        return result, Certificate(0.0, 0.0, "nothing to project")
    point /= largest
    slopes = cosines.dot(point)
    if slopes[chosen].min() >= 0.0:
        return result, Certificate(0.0, 0.0, "no conflict")
    root, semidefinite = semidefinite_root(cosines)
    steps = np.zeros_like(point)
    steps[chosen] = nonnegative(block(semidefinite, chosen), root[:, chosen], -root.dot(point))
    after = semidefinite.dot(point + steps)
    certificate = Certificate(
        residual=_residual(after[chosen], steps[chosen], np.abs(point).sum() + steps.sum()),
        gap=abs(float(steps.dot(after))) / max(float(point.dot(slopes)), 1e-300),
        method="nnls",
    )
    certificate.require("the projection on the dual cone")
    result[live] += steps * largest / lengths
    return result, certificate


def project_rows(gramian: torch.Tensor | npt.ArrayLike) -> tuple[Array, Certificate]:
    """The projections of all K gradients on the cone ``{d : g_k . d >= 0 for all k}``: row i of (K, K) weighs g_i's.

    See :func:`project_dual_cone`. The K programs share one factorisation. Where the gradients conflict much, the
    projection of g_i is orthogonal to all others: a column of ``C⁻¹``, divided by its diagonal entry, and a proof if it
    is non-negative. Only the other columns need a program, which starts from the signs of this one. The certificate is
    that of the worst column.
    """
    matrix = as_gramian(gramian)
    if len(matrix) == 2:
        projected = np.array([_two(matrix, np.array([1.0, 0.0])), _two(matrix, np.array([0.0, 1.0]))])
        return projected, Certificate(0.0, 0.0, "closed form")
    cosines, norms, live = live_rows(matrix)
    result = np.eye(len(norms))
    if not len(cosines) or cosines.min() >= 0.0:
        return result, Certificate(0.0, 0.0, "no conflict")
    root, semidefinite = semidefinite_root(cosines)
    guess = semidefinite < 0.0
    steps = np.zeros_like(cosines)
    columns = np.flatnonzero(guess.any(axis=0))
    if semidefinite is cosines:  # positive definite, and so with an inverse
        steps, columns, guess = _from_inverse(root, columns)
    if len(columns):
        steps[:, columns] = nonnegative_columns(semidefinite, root, -root[:, columns], guess[:, columns])
    after = semidefinite + semidefinite.dot(steps)
    violation = _violation(after, steps)
    if violation.max() > _SOLVED:  # an inverse lost to rounding
        columns = np.flatnonzero(violation > _SOLVED)
        steps[:, columns] = nonnegative_columns(semidefinite, root, -root[:, columns])
        after = semidefinite + semidefinite.dot(steps)
        violation = _violation(after, steps)
    certificate = Certificate(
        residual=float(violation.max()),
        gap=float(np.abs((steps * after).sum(axis=0)).max()),
        method="nnls",
    )
    certificate.require("the projection on the dual cone")
    lengths = norms[live]
    scaled = steps.T * lengths[:, None] / lengths
    if isinstance(live, slice):
        result += scaled
    else:
        result[live[:, None], live] += scaled
    return result, certificate


def _from_inverse(root: Array, columns: Indices) -> tuple[Array, Indices, Mask]:
    """Steps that make each g_i orthogonal to all others, the columns left, and where their guess is positive."""
    half = lapack().dpotri(root)[0]  # the upper triangle of the inverse; the rest is zero as in the root
    guessed = (half + half.T) / half.diagonal()
    np.fill_diagonal(guessed, 0.0)
    solved = guessed.min(axis=0) >= 0.0
    steps = np.zeros_like(guessed)
    found, left = columns[solved[columns]], columns[~solved[columns]]
    steps[:, found] = guessed[:, found]
    return steps, left, guessed > 0.0


def _two(matrix: Array, weights: Array) -> Array:
    """The closed form for two rows and non-negative weights.

    At most one of two rows conflicts with such a combination, and adding what makes it orthogonal frees the other.
    """
    (first, cross), (_, second) = matrix.tolist()
    length = math.sqrt(first) * math.sqrt(second)
    if not cross < 0.0 or length == 0.0:
        return weights
    cross = max(cross, -require_cosine(cross / length) * length)
    one, two = weights.tolist()
    return np.array([max(one, -two * cross / first), max(two, -one * cross / second)])


def _residual(slopes: Array, steps: Array, size: float) -> float:
    """The largest violation of ``y >= 0``, and of ``y = 0`` where ``x > 0``, over ``size``."""
    return max(float(np.where(steps > 0.0, np.abs(slopes), -slopes).max()), 0.0) / float(size)


def _violation(slopes: Array, steps: Array) -> Array:
    """The residual of each column, for projected unit vectors."""
    worst = np.where(steps > 0.0, np.abs(slopes), -slopes).max(axis=0, initial=0.0)
    return np.asarray(worst / (1.0 + steps.sum(axis=0)))
