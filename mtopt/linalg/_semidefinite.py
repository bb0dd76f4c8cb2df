"""Square roots of Gramians, which rounding makes slightly indefinite."""

from __future__ import annotations

import numpy as np

from mtopt._errors import SolverError
from mtopt.linalg._arrays import Array, load_lapack
from mtopt.linalg._gramian import normalize_gramian

INDEFINITE = 0.02
"""Largest change of a cosine that passes as rounding: float32 products make 1e-7, a Gramian kept in bfloat16 1e-2."""


def take_square_root(matrix: Array) -> Array:
    """R with ``R.T @ R == matrix`` for a positive semi-definite ``matrix`` of any rank.

    Gradients in float32 give a Gramian with an error near 1e-7, so one of deficient rank comes out slightly
    indefinite. ``R.T @ R`` is then the semi-definite matrix nearest to it, and the one to certify a solution with.
    """
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T)


def take_semidefinite_root(cosines: Array) -> tuple[Array, Array]:
    """R and the positive semi-definite ``R.T @ R`` nearest to ``cosines``, (K, K) with a unit (or zero) diagonal.

    Inner products rounded in float32 make a singular Gramian indefinite by 1e-7. The matrix returned is then that of
    gradients which differ from the given ones by no more than the rounding did; programs on it have solutions.

    Raises:
        SolverError: the matrix is more indefinite than rounding makes it.
    """
    root, failed = load_lapack().dpotrf(cosines)
    if not failed:
        return np.asarray(root), cosines
    root = take_square_root(cosines)
    semidefinite = root.T @ root
    require_semidefinite(float(np.abs(semidefinite - cosines).max()))
    return root, semidefinite


def read_coordinates(matrix: Array) -> Array:
    """(K, K) rows with ``rows @ rows.T == matrix``, up to making it positive semi-definite.

    For programs on combinations of the gradients, whose squared lengths are thus never negative. A Gramian does not
    know the length of a combination that cancels to less than the square root of its own precision.
    """
    cosines, norms = normalize_gramian(matrix)
    root, _ = take_semidefinite_root(cosines)
    return np.asarray(norms[:, None] * root.T)


def require_cosine(cosine: float) -> float:
    """1, or SolverError when ``cosine`` is further beyond it than rounding takes it."""
    require_semidefinite(abs(cosine) - 1.0)
    return 1.0


def require_semidefinite(change: float) -> None:
    """SolverError when a Gramian is further from positive semi-definite, in its cosines, than rounding takes it."""
    if not change <= INDEFINITE:
        raise SolverError(
            f"the Gramian is not positive semi-definite (off by {change:.1e} in the cosines), so it is no matrix of "
            "inner products; compute it in float64"
        )
