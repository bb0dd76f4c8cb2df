"""The simplex method in whole numbers: no rounding, hence no tolerance."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from mtopt.linalg import Array

Whole = npt.NDArray[Any]
"""An array of Python integers of any size."""


def exact_simplex(objective: Array, rows: Array, bounds: Array, edge: Array) -> tuple[Array, Array] | None:
    """The largest ``c . x`` over ``A x >= b``, ``e . x = 1``, ``x >= 0``, exactly for the given floats.

    Each row is multiplied by a power of two that makes it integer, and every pivot is an exact division by the one
    before it (Edmonds, 1967). Pivots go to the largest coefficient first, and by Bland's rule, which cannot cycle, if
    that takes long. Up to a dozen variables this takes no longer than a call of HiGHS; the cost grows steeply after.

    Args:
        objective: c, (n,), finite. Bounded above on the feasible set, which the callers see to.
        rows: A, (m, n).
        bounds: b, (m,), not positive.
        edge: e, (n,), non-negative.

    Returns:
        x, (n,), and the multipliers of the m + 1 rows, rounded once at the end; None where no x is feasible.
    """
    tableau = _Tableau(objective, rows, bounds, edge)
    if not tableau.reach_edge():
        return None
    tableau.climb()
    return tableau.answer()


class _Tableau:
    """Basic variables in rows, the others in columns: ``-A x + s = -b`` and ``e x + t = 1``, objective row last."""

    def __init__(self, objective: Array, rows: Array, bounds: Array, edge: Array) -> None:
        count, self.variables = rows.shape
        scaled = [_integers(np.append(-row, -bound)) for row, bound in zip(rows, bounds, strict=True)]
        scaled += [_integers(np.append(edge, 1.0)), _integers(np.append(-objective, 0.0))]
        self.table: Whole = np.array([row for row, _ in scaled], dtype=object)
        self.exponents = [exponent for _, exponent in scaled]
        self.denominator = 1
        self.artificial = self.variables + count
        self.basis = list(range(self.variables, self.artificial + 1))
        self.columns = list(range(self.variables))
        self.pivots = 0
        self.patience = 2 * (count + self.variables)

    def reach_edge(self) -> bool:
        """Raise ``e x`` to 1 from x = 0, which all rows allow; False where it ends below."""
        while self.artificial in self.basis:
            row = self.basis.index(self.artificial)
            if self.table[row, -1] == 0:  # reached, and the artificial variable stays in the basis at zero
                return True
            choices = [k for k in range(self.variables) if self.table[row, k] > 0]
            if not choices:
                return False
            self._pivot(self._leaving(column := self._entering(choices, self.table[row])), column)
        return True

    def climb(self) -> None:
        """To the maximum."""
        while True:
            costs = self.table[-1]
            choices = [k for k in range(self.variables) if costs[k] < 0 and self.columns[k] != self.artificial]
            if not choices:
                return
            self._pivot(self._leaving(column := self._entering(choices, -costs)), column)

    def answer(self) -> tuple[Array, Array]:
        point, multipliers = np.zeros(self.variables), np.zeros(len(self.basis))
        for row, variable in enumerate(self.basis):
            if variable < self.variables:
                point[variable] = float(Fraction(self.table[row, -1], self.denominator))
        for column, variable in enumerate(self.columns):
            if variable >= self.variables:
                row = variable - self.variables
                scale = Fraction(2) ** (self.exponents[-1] - self.exponents[row])
                multipliers[row] = float(Fraction(self.table[-1, column], self.denominator) * scale)
        return point, multipliers

    def _entering(self, choices: list[int], gains: Whole) -> int:
        if self.pivots > self.patience:
            return min(choices, key=self.columns.__getitem__)
        return max(choices, key=gains.__getitem__)

    def _leaving(self, column: int) -> int:
        """The row that reaches zero first; of several the one whose variable has the least number."""
        best = -1
        right = self.table[:, -1]
        for row in range(len(self.basis)):
            entry = self.table[row, column]
            if entry > 0:
                ahead = -1 if best < 0 else right[row] * self.table[best, column] - right[best] * entry
                if ahead < 0 or (ahead == 0 and self.basis[row] < self.basis[best]):
                    best = row
        assert best >= 0, "unbounded: the simplex bounds every caller's objective"
        return best

    def _pivot(self, row: int, column: int) -> None:
        table, pivot = self.table, self.table[row, column]
        entries, line = table[:, column].copy(), table[row].copy()
        table = (table * pivot - np.multiply.outer(entries, line)) // self.denominator
        table[row] = line
        table[:, column] = -entries
        table[row, column] = self.denominator
        self.table, self.denominator = table, pivot
        self.basis[row], self.columns[column] = self.columns[column], self.basis[row]
        self.pivots += 1


def _integers(values: Array) -> tuple[Whole, int]:
    """Whole numbers and one exponent: ``values = numbers * 2**exponent``, exactly."""
    mantissas, exponents = np.frexp(values)
    lowest = int(exponents[mantissas != 0.0].min(initial=0)) - 53
    numbers = [
        int(mantissa * 2.0**53) << (exponent - 53 - lowest) if mantissa else 0
        for mantissa, exponent in zip(mantissas.tolist(), exponents.tolist(), strict=True)
    ]
    return np.array(numbers, dtype=object), lowest
