"""Non-negative least squares from inner products: the core of the programs on cones and simplices."""

from __future__ import annotations

import numpy as np

from mtopt.linalg import Array, Mask, load_lapack
from mtopt.solvers._active_set import nonnegative_within

FEW = 16
"""Up to this many variables the method of Lawson and Hanson, in C, is faster than exchanges in numpy."""

_ROUNDS = 16
"""Exchanges after which it goes to Lawson and Hanson; three to six are usual, whatever the size."""

_MISSED = 1e-10
"""Slope of the wrong sign, over the terms in it, with which SciPy's answer is none."""

_SIGN = 1e-13
"""Rounding below which a sign means nothing, in units of 1 (the matrices here have a unit diagonal)."""


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
    solve = load_lapack().dposv
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
