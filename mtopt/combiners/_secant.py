"""A model of a Gramian that is only ever seen in products with vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtopt.linalg import Array

_LEAST = 1e-2
"""Least entry of the first diagonal, over its largest: a product near zero tells nothing of a gradient's length."""

_KNOWN = 3e-6
"""Least share of the terms of the curvature ``v'y`` along a difference v that is more than rounding in float32."""


class SecantGramian:
    """A positive definite K x K model B of G = J Jᵀ that agrees with the last product: ``B w = G w``.

    The first product gives a diagonal, ``|(G w)_i| / w_i``. Each pair of a vector v and ``y = G v`` enters as in the
    BFGS method, ``B <- B - (B v)(B v)' / v'B v + y y' / v'y``, which keeps B positive definite since
    ``v'y = ||J'v||² > 0``. Two pairs enter with each product: the difference to the last vector, with which B learns
    how G curves from one vector to the other, and then the vector itself. Whatever program is solved with B in place
    of G: a vector that solves it, and is itself the last one that entered, solves it with G.

    The model has the unit of a squared gradient and takes any: nothing in it is compared with a constant.
    """

    def __init__(self) -> None:
        self.matrix: Array = np.zeros((0, 0))
        self._last: tuple[tuple[int, ...], Array, Array] | None = None

    def learn(self, count: int, positions: Sequence[int], vector: Array, product: Array) -> None:
        """Take in ``product = G vector`` for the rows at ``positions`` out of ``count``; ``vector' product > 0``."""
        rows = list(positions)
        new = count - len(self.matrix)
        if new:  # unknown until a product has them
            self.matrix = np.pad(self.matrix, (0, new))
            self.matrix[range(-new, 0), range(-new, 0)] = np.nan
        self._begin(rows, vector, product)
        last, self._last = self._last, (tuple(rows), vector.copy(), product.copy())
        if last is not None and last[0] == tuple(rows):
            self._update(rows, vector - last[1], product - last[2], vector)
        self._update(rows, vector, product, np.zeros(len(rows)))

    def block(self, positions: Sequence[int]) -> Array:
        """The model of the inner products among the rows at ``positions``."""
        rows = np.asarray(positions)
        return np.asarray(self.matrix[rows[:, None], rows])

    def _begin(self, rows: list[int], vector: Array, product: Array) -> None:
        unknown = [place for place, row in enumerate(rows) if np.isnan(self.matrix[row, row])]
        if unknown:
            lengths = np.abs(product) / np.where(vector > 0.0, vector, np.inf)
            lengths = np.maximum(lengths, _LEAST * lengths.max())
            for place in unknown:
                self.matrix[rows[place], rows[place]] = lengths[place]

    def _update(self, rows: list[int], vector: Array, product: Array, origin: Array) -> None:
        """Take in a pair; one that is a difference carries the rounding of ``origin``, the vector it was taken at."""
        # over all the rows that are known: what a row that is absent would have given is what the model says
        known = np.flatnonzero(~np.isnan(self.matrix.diagonal()))
        matrix = self.matrix[known[:, None], known]
        here = np.searchsorted(known, rows)
        full = np.zeros(len(known))
        full[here] = vector
        modelled = matrix @ full
        seen = modelled.copy()
        seen[here] = product
        before, after = float(full @ modelled), float(full @ seen)
        size = np.sqrt(matrix.diagonal())
        length, of_origin = float(np.abs(full) @ size), float(np.abs(origin) @ size[here])
        if not (before > 0.0 and after > length * max(1e-14 * length, _KNOWN * of_origin)):
            return  # no curvature to learn from: the same vector again, or rounding and noise alone
        matrix = matrix - np.outer(modelled, modelled / before) + np.outer(seen, seen / after)
        self.matrix[known[:, None], known] = 0.5 * (matrix + matrix.T)

    def saved(self) -> dict[str, Any]:
        """Everything that the next answer depends on, in lists of numbers, which do not round."""
        last = None
        if self._last is not None:
            rows, vector, product = self._last
            last = [list(rows), vector.tolist(), product.tolist()]
        return {"matrix": self.matrix.tolist(), "last": last}

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> SecantGramian:
        """The model that gave ``saved``."""
        model = cls()
        model.matrix = np.array(saved["matrix"], dtype=np.float64).reshape(len(saved["matrix"]), -1)
        if saved["last"] is not None:
            rows, vector, product = saved["last"]
            model._last = (tuple(rows), np.array(vector), np.array(product))
        return model
