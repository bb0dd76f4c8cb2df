"""Small linear programs over a weighted simplex, solved and certified."""

from __future__ import annotations

import numpy as np

from mtopt._errors import SolverError
from mtopt.linalg import Array
from mtopt.solvers._certificate import TOLERANCE, Certificate
from mtopt.solvers._exact_simplex import exact_simplex

_FEW = 12
"""Up to this many variables whole numbers are as fast as the call of HiGHS, three to five milliseconds."""

_MANY = 72
"""Above this many variables whole numbers take minutes."""

LOOSENING = 1e-13
"""What callers add to the cosines in a row, so that rounding does not make a program infeasible that just is.

It is for the arithmetic of float64 alone: cosines that are known less well were made positive semi-definite before, and
programs on these are feasible. A slack of what is not known would let losses rise by that."""


def maximise_linear(objective: Array, rows: Array, bounds: Array, edge: Array) -> tuple[Array | None, Certificate]:
    """``x >= 0`` with the largest ``c . x`` such that ``A x >= b`` and ``e . x = 1``.

    The terms of a row may differ by many decades, and so may the entries of x. What counts as solved is therefore
    measured term by term: no row may miss its bound by more than 1e-10 of the sum of the moduli of the terms in it, no
    reduced cost may have the wrong sign by more than 1e-10 of its own terms, and the two objectives must agree to
    1e-10 of theirs. Multiplying a row or a variable by a number changes none of these.

    HiGHS (:func:`scipy.optimize.linprog`) works to absolute tolerances, and misses these in one program of twenty when
    rows differ by 1e6. Small programs, and those that it misses, are solved in whole numbers.

    Args:
        objective: c, (n,); bounded above on the feasible set.
        rows: A, (m, n).
        bounds: b, (m,), not positive.
        edge: e, (n,), non-negative.

    Returns:
        x, (n,), and the certificate: ``residual`` is the largest of the three figures above, ``gap`` the last of them.
        None, with a residual of zero, where no x is feasible.

    Raises:
        SolverError: the residual is above 1e-10.
    """
    size = float(np.abs(objective).max())
    program = _Program(objective / size if size > 0.0 else objective, rows, bounds, edge)
    found = program.by_highs() if len(objective) > _FEW else None
    method = "HiGHS"
    if found is None or program.residual(*found)[0] > TOLERANCE:
        if len(objective) > _MANY:
            raise SolverError(
                f"a linear program of {len(objective)} variables was not solved by HiGHS to {TOLERANCE:.0e}; bring the "
                "gradients to a similar length first (the wrapper Normalized does)"
            )
        found, method = exact_simplex(program.objective, rows, bounds, edge), "exact simplex"
        if found is None:
            return None, Certificate(0.0, None, "infeasible")
    residual, gap = program.residual(*found)
    certificate = Certificate(residual, gap, method)
    certificate.require("the linear program")
    return found[0], certificate


class _Program:
    """The rows ``[A; -e]`` with right-hand sides ``[b; -1]``, the last an equality; multipliers ``[y; z]``, y >= 0."""

    def __init__(self, objective: Array, rows: Array, bounds: Array, edge: Array) -> None:
        self.objective = objective
        self.matrix = np.vstack([rows, -edge])
        self.right = np.append(bounds, -1.0)

    def by_highs(self) -> tuple[Array, Array] | None:
        """The answer of HiGHS and its multipliers; None where it has none."""
        from scipy.optimize import linprog  # half a second of import, paid by who needs it

        found = linprog(
            -self.objective,
            A_ub=-self.matrix[:-1],
            b_ub=-self.right[:-1],
            A_eq=self.matrix[-1:],
            b_eq=self.right[-1:],
            bounds=(0.0, None),
            method="highs",
            options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},  # the least it takes
        )
        if found.status != 0:
            return None
        return np.maximum(np.asarray(found.x), 0.0), np.append(
            np.maximum(-found.ineqlin.marginals, 0.0), found.eqlin.marginals
        )

    def residual(self, point: Array, multipliers: Array) -> tuple[float, float]:
        """The largest relative violation of optimality, and the relative duality gap."""
        slack = self.matrix @ point - self.right
        missed = np.append(np.maximum(-slack[:-1], 0.0), abs(slack[-1]))
        terms = np.abs(self.matrix) @ point + np.abs(self.right)
        costs = np.maximum(self.objective + self.matrix.T @ multipliers, 0.0)
        cost_terms = np.abs(self.objective) + np.abs(self.matrix).T @ np.abs(multipliers)
        gap = abs(float(self.objective @ point + self.right @ multipliers))
        gap_terms = float(np.abs(self.objective) @ point + np.abs(self.right) @ np.abs(multipliers))
        relative = gap / gap_terms if gap_terms > 0.0 else 0.0
        return max(_over(missed, terms), _over(costs, cost_terms), relative), relative


def _over(violation: Array, terms: Array) -> float:
    return float((violation / np.where(terms > 0.0, terms, 1.0)).max())
