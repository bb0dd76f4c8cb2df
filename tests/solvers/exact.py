"""Exact answers to the rules' programs, in rational arithmetic on the rows as they are given. No code of mtopt.

Floating-point numbers are fractions, so the rows are exact, and so are their inner products. Non-negative least squares
by the method of Lawson and Hanson ends in finitely many steps on them, with rows of any rank: a row that enters has a
negative product with the residual, to which the rows inside are orthogonal, so it never depends on these. Nothing is
rounded, nothing is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

Row = list[Fraction]

DIGITS = 60
"""Decimal places of the square roots, which are no fractions."""


def fractions_of(jacobian: torch.Tensor) -> list[Row]:
    """The rows of a tensor of any floating-point dtype, as they are."""
    return [[Fraction(entry) for entry in row] for row in jacobian.double().tolist()]


def dot(first: Sequence[Fraction | int], second: Sequence[Fraction | int]) -> Fraction:
    """The inner product: one fraction is made of it at the end, since reducing is what takes the time."""
    numerator, denominator = 0, 1
    for a, b in zip(first, second, strict=True):
        over = a.denominator * b.denominator
        if over != denominator:
            common = math.lcm(over, denominator)
            numerator, denominator = numerator * (common // denominator), common
        numerator += a.numerator * b.numerator * (denominator // over)
    return Fraction(numerator, denominator)


def combination(weights: Sequence[Fraction], rows: Sequence[Row]) -> Row:
    return [dot(weights, column) for column in zip(*rows, strict=True)]


def length(vector: Sequence[Fraction]) -> float:
    """The norm in float64, without overflow or underflow on the way."""
    return float(root(dot(vector, vector)))


def root(square: Fraction) -> Fraction:
    """The square root to :data:`DIGITS` significant places or more."""
    if square == 0:
        return Fraction(0)
    over = square.numerator * square.denominator
    short = square.denominator.bit_length() - square.numerator.bit_length()
    shift = 10 ** (DIGITS + max(0, math.ceil(0.302 * short)))
    return Fraction(math.isqrt(over * shift * shift), square.denominator * shift)


# -- the projection ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Projection:
    """The vector of ``{d : g_k . d >= 0}`` nearest to ``point``: ``point + sum_k steps[k] * g_k`` with ``steps >= 0``.

    The vector is unique; the steps are not where rows depend on each other. The rows of these are independent.
    """

    vector: Row
    steps: Row

    def reach(self, rows: Sequence[Row]) -> float:
        """``sum_k steps[k] * ||g_k||``: how far errors in the rows' angles move the vector."""
        return sum(float(step) * length(row) for step, row in zip(self.steps, rows, strict=True))


def project(rows: Sequence[Row], point: Row, within: Sequence[int] | None = None) -> Projection:
    """The projection of ``point`` on the dual cone of the rows (of those ``within``), exactly."""
    chosen = [k for k in (range(len(rows)) if within is None else within) if any(rows[k])]
    # the cone does not know how long its rows are: they are made whole, which keeps the numbers short
    factors = [_whole_factor(rows[k]) for k in chosen]
    whole = [[int(entry * factor) for entry in rows[k]] for k, factor in zip(chosen, factors, strict=True)]
    scale = _whole_factor(point) if any(point) else Fraction(1)
    start = [int(entry * scale) for entry in point]
    gramian = [[sum(map(int.__mul__, one, other)) for other in whole] for one in whole]
    slopes = [sum(map(int.__mul__, row, start)) for row in whole]
    found = _nonnegative(gramian, slopes)
    steps = [Fraction(0)] * len(rows)
    for k, factor, step in zip(chosen, factors, found, strict=True):
        steps[k] = step * factor / scale
    vector = [entry + move for entry, move in zip(point, combination(steps, rows), strict=True)]
    return Projection(vector, steps)


def _whole_factor(row: Sequence[Fraction]) -> Fraction:
    """The least number that makes ``row`` whole; the entries have no common divisor then."""
    common = math.lcm(*[entry.denominator for entry in row])
    return Fraction(common, math.gcd(*[int(entry * common) for entry in row]))


def _nonnegative(gramian: list[list[int]], slopes: list[int]) -> Row:
    """``x >= 0`` with ``y = slopes + G x >= 0`` and ``x y = 0``, for slopes in the range of a semi-definite G."""
    steps: dict[int, Fraction] = {}
    while True:
        inside = list(steps)
        ascents = [dot([gramian[k][j] for j in inside], list(steps.values())) + slopes[k] for k in range(len(slopes))]
        falling = [k for k in range(len(slopes)) if ascents[k] < 0]
        if not falling:
            return [steps.get(k, Fraction(0)) for k in range(len(slopes))]
        entering = max(falling, key=lambda k: ascents[k] ** 2 / gramian[k][k])
        steps[entering] = Fraction(0)
        while True:
            inside = list(steps)
            solved = _solve([[gramian[k][j] for j in inside] for k in inside], [-slopes[k] for k in inside])
            if min(solved) > 0:
                steps = dict(zip(inside, solved, strict=True))
                break
            share = min(steps[k] / (steps[k] - wanted) for k, wanted in zip(inside, solved, strict=True) if wanted <= 0)
            moved = {k: steps[k] + share * (wanted - steps[k]) for k, wanted in zip(inside, solved, strict=True)}
            steps = {k: step for k, step in moved.items() if step > 0}


def _solve(matrix: list[list[int]], right: list[int]) -> Row:
    """The solution of a system with a positive definite matrix, by elimination without fractions (Bareiss)."""
    table = [[*row, entry] for row, entry in zip(matrix, right, strict=True)]
    size, last = len(table), 1
    for column in range(size):
        line, pivot = table[column], table[column][column]
        for k in range(size):
            if k != column:
                factor = table[k][column]
                table[k] = [(pivot * a - factor * b) // last for a, b in zip(table[k], line, strict=True)]
        last = pivot
    return [Fraction(row[-1], last) for row in table]


# -- other programs on projections ---------------------------------------------------------------------------------


def upgrad(rows: Sequence[Row]) -> tuple[Row, float]:
    """The mean of the projections of all rows, and the largest reach of one over that row's length."""
    found = [(project(rows, row), length(row)) for row in rows]
    reach = max((projection.reach(rows) / norm for projection, norm in found if norm), default=0.0)
    share = Fraction(1, len(rows))
    return [share * sum(column, Fraction(0)) for column in zip(*[p.vector for p, _ in found], strict=True)], reach


def dualproj(rows: Sequence[Row]) -> tuple[Row, float]:
    """The projection of the mean, and its reach over the mean length of the rows."""
    projection = project(rows, mean_of(rows))
    return projection.vector, projection.reach(rows) / max(sum(map(length, rows)) / len(rows), 1e-300)


def gem(rows: Sequence[Row], current: int = 0) -> tuple[Row, float]:
    """The projection of the current row on the dual cone of the others, and its reach over that row's length."""
    projection = project(rows, rows[current], [k for k in range(len(rows)) if k != current])
    return projection.vector, projection.reach(rows) / max(length(rows[current]), 1e-300)


def mean_of(rows: Sequence[Row]) -> Row:
    return [sum(column, Fraction(0)) / len(rows) for column in zip(*rows, strict=True)]


def min_norm(rows: Sequence[Row]) -> Row:
    """Weights of a shortest vector of the convex hull.

    ``min || J'v ||² + (e'v - 1)²`` over ``v >= 0`` is a projection on the dual cone of the rows with one more entry,
    and ``v / e'v`` solves the program.
    """
    last = Fraction(-1)
    steps = project([[*row, Fraction(1)] for row in rows], [Fraction(0)] * len(rows[0]) + [last]).steps
    total = sum(steps, Fraction(0))
    return [step / total for step in steps]
