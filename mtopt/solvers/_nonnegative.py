"""Non-negative least squares from inner products: the core of the programs on cones and simplices."""

from __future__ import annotations

import numpy as np

from mtopt._errors import SolverError
from mtopt.solvers._active_set import nonnegative_within
from mtopt.solvers._gramian import Array, Mask, lapack, square_root

FEW = 16
"""Up to this many variables the method of Lawson and Hanson, in C, is faster than exchanges in numpy."""

_ROUNDS = 16
"""Exchanges after which it goes to Lawson and Hanson; three to six are usual, whatever the size."""

_MISSED = 1e-10
"""Slope of the wrong sign, over the terms in it, with which SciPy's answer is none."""

_SIGN = 1e-13
"""Rounding below which a sign means nothing, in units of 1 (the matrices here have a unit diagonal)."""

INDEFINITE = 0.02
"""Largest change of a cosine that passes as rounding: float32 products make 1e-7, a Gramian kept in bfloat16 1e-2."""


def semidefinite_root(cosines: Array) -> tuple[Array, Array]:
    """R and the positive semi-definite ``R.T @ R`` nearest to ``cosines``, (K, K) with a unit (or zero) diagonal.

    Inner products rounded in float32 make a singular Gramian indefinite by 1e-7. The matrix returned is then that of
    gradients which differ from the given ones by no more than the rounding did; programs on it have solutions.

    Raises:
        SolverError: the matrix is more indefinite than rounding makes it.
    """
    root, failed = lapack().dpotrf(cosines)
    if not failed:
        return np.asarray(root), cosines
    root = square_root(cosines)
    semidefinite = root.T @ root
    require_semidefinite(float(np.abs(semidefinite - cosines).max()))
    return root, semidefinite


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


def nonnegative(matrix: Array, root: Array, target: Array) -> Array:
    """``x >= 0``, (K,), that minimises ``|| R x - t ||²`` for a target t, (m,).

    ``matrix`` is ``R.T @ R``, (K, K). The answer solves a linear complementarity problem: ``y = R' (R x - t) >= 0``,
    ``x >= 0``, ``x y = 0``. Few variables go through ``scipy.optimize.nnls``, which moves one at a time. More are
    solved several times faster by exchanges; what does not settle goes back to nnls.
    """
    if len(matrix) > FEW:
        found = exchange(matrix, -target.dot(root))
        if found is not None:
            return found
    return one_at_a_time(matrix, root, target)


def one_at_a_time(matrix: Array, root: Array, target: Array) -> Array:
    """:func:`nonnegative` by the method of Lawson and Hanson.

    SciPy's answer is looked at: where values tie at zero it is now and then that of the round before (1.17).
    """
    from scipy.optimize import nnls  # half a second of import, paid by who needs it

    found = np.asarray(nnls(root, target, maxiter=30 * root.shape[1])[0])
    slopes = (root.dot(found) - target).dot(root)
    size = float(np.abs(target).sum() + found.sum())
    if np.where(found > 0.0, np.abs(slopes), -slopes).max() > _MISSED * size:
        return nonnegative_within(matrix, -target.dot(root), size, _SIGN)
    return found


def exchange(matrix: Array, slopes: Array, guess: Mask | None = None) -> Array | None:
    """:func:`nonnegative` by exchanges, or None if they do not settle.

    All of the wrong sign are exchanged at once (Portugal, Judice and Vicente, 1994), starting from the ``guess`` of
    which are positive. ``slopes`` is y at x = 0.
    """
    sizes = np.abs(slopes)
    # as one variable grows others that hardly ascended will descend: it takes one exchange less to start with them
    positive = slopes < 0.5 * float(sizes.sum()) / len(sizes) if guess is None else guess
    rounding = -_SIGN * max(float(sizes.max()), 1.0)
    solve = lapack().dposv
    for _ in range(_ROUNDS):
        support = positive.nonzero()[0]
        values = np.zeros(len(slopes))
        if len(support):
            system = matrix.take(support, 0).take(support, 1).T  # symmetric, and as LAPACK lays it out
            _, values[support], failed = solve(system, -slopes[support], overwrite_a=True, overwrite_b=True)
            if failed:  # linearly dependent gradients
                return None
        wrong = np.where(positive, values, matrix.dot(values) + slopes) < rounding
        if not wrong.any():
            return np.maximum(values, 0.0)
        positive = positive ^ wrong
    return None
