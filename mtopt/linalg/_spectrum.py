"""Pseudo-inverses and square roots of Gramians whose rank has to be decided."""

from __future__ import annotations

import math

import numpy as np

from mtopt.linalg._arrays import Array, load_lapack
from mtopt.linalg._precision import Precision

_GRADED = 1e-4
"""Ratio of eigenvalues down to which an ordinary solver gives twelve digits of the smallest."""


def apply_pseudo_inverse(cosines: Array, target: Array, precision: Precision) -> tuple[Array, bool]:
    """``C⁺ t``, the shortest of the least-squares solutions of ``C x = t``, and whether it solves the equations.

    Where gradients depend on each other, C has eigenvalues that should be zero and come out at the error of the
    products or the square of that of the rows. Eigenvectors are off by more, by these errors over the eigenvalue and
    over its square root: where no part of t is larger, t is orthogonal to the range, and the answer zero.

    Args:
        cosines: C, (K, K), of unit gradients.
        target: t, (K,).
        precision: of the gradients and their cosines.
    """
    count, precision = len(cosines), precision.of_numbers()
    share = precision.rank_share(count)
    factor, failed = load_lapack().dpotrf(cosines)
    if not failed:
        reciprocal, _ = load_lapack().dpocon(factor, float(count))  # the 1-norm of C is K at most
        if reciprocal > count * share:  # a safe distance from any rank decision
            return np.asarray(load_lapack().dpotrs(factor, target)[0]), True
    values, vectors = np.linalg.eigh(cosines)
    kept = values > share * values[-1]
    parts = vectors.T @ target
    # how far an eigenvector is off whose eigenvalue is so far from those of the null vectors
    errors = count * precision.products / values[kept] + 4.0 * precision.rows / np.sqrt(values[kept])
    size = float(np.linalg.norm(target))
    if (np.abs(parts[kept]) <= errors * size).all():
        return np.zeros_like(target), False
    solvable = bool(np.linalg.norm(parts[~kept]) <= errors[0] * size)
    return np.asarray(vectors[:, kept] @ (parts[kept] / values[kept])), solvable


def find_singular_values(matrix: Array, cosines: Array, norms: Array, tolerance: float) -> tuple[Array, Array]:
    """Singular values of J, largest first, and its left singular vectors in columns, from ``G = J J'``.

    Args:
        matrix: G, (K, K), without zero rows; ``cosines`` and ``norms`` are its unit form.
        tolerance: the rank is the number of eigenvalues of the cosines above this share of the largest.

    Gradients whose norms differ by many decades have singular values that do, and the eigenvalues of G, their squares,
    differ by twice as many. The smallest are then taken from a factor of G with rows as graded as the gradients, by
    Jacobi's method, to full relative accuracy.
    """
    values, vectors, failed = load_lapack().dsyevd(matrix)
    if not failed and values[0] > max(_GRADED, len(matrix) * tolerance) * values[-1]:
        return np.sqrt(values[::-1]), vectors[:, ::-1]
    values = np.linalg.eigvalsh(cosines)
    rank, scale = int(np.count_nonzero(values > tolerance * values[-1])), norms.max()
    independent, combinations = _take_longest(cosines, norms / scale, rank, tolerance)
    if len(independent) == len(cosines):
        found, left = _decompose_graded(independent)
        return found * scale, combinations @ left
    # J = T J_1, J_1 of the independent rows, and S' S = T' T: then S J_1 has the singular values of J, and if its left
    # vectors are U, those of J are T S⁻¹ U. T and S are as graded as the rows, and lose no digits of a short one
    mixed = np.linalg.cholesky(combinations.T @ combinations).T
    found, left = _decompose_graded(mixed @ independent)
    return found * scale, combinations @ load_lapack().dtrtrs(mixed, left)[0]


def _take_longest(cosines: Array, norms: Array, rank: int, tolerance: float) -> tuple[Array, Array]:
    """``L`` (rank, rank) and ``T`` (K, rank) with ``G = T L L' T'``: independent rows, and all as their combinations.

    By Cholesky's method, whose next row is the longest one that is not known to depend on those before, up to ``rank``
    of them. What rounding leaves of a long row would else count as a component as long as a short one.
    """
    rest, parts = cosines.copy(), np.zeros_like(cosines)
    chosen: list[int] = []
    while len(chosen) < rank and rest.any():
        left = rest.diagonal()
        pivot = int((left * norms**2).argmax())
        part = parts[:, len(chosen)] = rest[:, pivot] / math.sqrt(left[pivot])
        chosen.append(pivot)
        rest -= part[:, None] * part
        depends = rest.diagonal() <= tolerance / len(rest)
        depends[chosen] = True
        rest[depends] = rest[:, depends] = 0.0
    parts = parts[:, : len(chosen)]
    lower = np.tril(parts[chosen])
    of_units = load_lapack().dtrtrs(lower, parts.T, lower=1, trans=1)[0].T
    of_units[chosen] = np.eye(len(chosen))
    return norms[chosen, None] * lower, norms[:, None] * of_units / norms[chosen]


def _decompose_graded(matrix: Array) -> tuple[Array, Array]:
    """Singular values and left vectors of a square matrix with rows of any lengths, longest first."""
    found, left, _, work, _, failed = load_lapack().dgejsv(matrix, joba=2)
    if failed:
        raise np.linalg.LinAlgError(f"Jacobi's method did not converge (dgejsv returned {failed})")
    return found * (work[0] / work[1]), left
