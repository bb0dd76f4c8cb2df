"""What a rule's direction may be at most and its certificate may say at least, by exact arithmetic on the rows."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch

from mtopt.combiners import Combiner, Gradients, create_combiner
from mtopt.testing import samplers
from tests.solvers import exact, exact_programs
from tests.solvers.exact import Row

SHORT = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-4}
"""What passes as zero, over the data's scale."""

TOLERANCE = SHORT | {torch.bfloat16: 1e-4 + 2.0**-8}
"""Violation that passes, in unit gradients over ``||d||``: the issue's, and half a unit in the last of d's 8 bits."""

ADDED_IN = {torch.float64: torch.float64, torch.float32: torch.float32, torch.bfloat16: torch.float32}
"""Precision of the sum that makes d."""

STEADY = 100.0
"""Reach of an answer (see ``Projection.reach``) up to which it follows from the rows within their precision."""

APART = {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 2.0**-5}
"""Length of the shortest convex combination of the unit rows up to which a fair rule may take it for rounding."""

FLOOR = 1e-15
"""What a certificate in float64 need not see."""


@dataclass(frozen=True)
class Truth:
    """What exact arithmetic says of one rule on one set of rows.

    Attributes:
        scale: the length that the rule's answers have by its definition: that of the longest row, or another.
        answer: the exact direction; None where the program has no unique one that is worth comparing with.
        steady: whether the answer follows from the rows within the tolerance, or from less than that.
        error: by how much a vector misses what is promised of each row, as a length: what the vector's product with the
            row is too small by, over the row's norm. For the vector and the weights that make it.
        apart: length of the shortest convex combination of the unit rows, where it decides whether there is an answer.
    """

    rows: list[Row]
    scale: float
    answer: Row | None
    steady: bool
    error: Callable[[Row, Row | None], float]
    apart: float = math.inf


def rising(rows: list[Row]) -> Callable[[Row, Row | None], float]:
    """``max_k -g_k . d / ||g_k||``."""
    norms = [exact.length(row) for row in rows]

    def error(vector: Row, weights: Row | None = None) -> float:
        falls = [float(exact.dot(row, vector)) / norm for row, norm in zip(rows, norms, strict=True) if norm]
        return max(0.0, -min(falls, default=0.0))

    return error


def projected(rows: list[Row], found: tuple[Row, float]) -> Truth:
    vector, reach = found
    return Truth(rows, _longest(rows), vector, reach <= STEADY, rising(rows))


def shortest(rows: list[Row]) -> Truth:
    """MGDA promises more: ``g_k . d >= ||d||²``. The length of its answer never moves further than the rows do."""
    norms = [exact.length(row) for row in rows]

    def error(vector: Row, weights: Row | None = None) -> float:
        square = exact.dot(vector, vector) if weights is not None else Fraction(0)
        falls = [float(exact.dot(row, vector) - square) / norm for row, norm in zip(rows, norms, strict=True) if norm]
        return max(0.0, -min(falls, default=0.0))

    return Truth(rows, _longest(rows), exact.combination(exact.min_norm(rows), rows), True, error)


def averse(rows: list[Row], rounding: float, radius: float = 0.4) -> Truth:
    """In the ball, and no product below the best that the worst one can be.

    What a direction may fall short of it by is what the rounding of the rows' entries alone moves the best value by:
    for gradients that differ from a dependent set by no more, that is all there is of it.
    """
    best = exact_programs.conflict_averse(rows, radius)
    norms = [exact.length(row) for row in rows]

    def error(vector: Row, weights: Row | None = None) -> float:
        outside = exact.length([a - b for a, b in zip(vector, best.mean, strict=True)]) - float(best.bound)
        unknown = 0.0 if weights is not None else 4.0 * rounding * float(best.bound) * best.terms
        short = [
            (float(best.value - exact.dot(row, vector)) - unknown) / norm
            for row, norm in zip(rows, norms, strict=True)
            if norm
        ]
        return max(0.0, outside, *short)

    return Truth(rows, _longest(rows), best.vector, False, error)


def fair(rows: list[Row], alpha: float) -> Truth:
    """``g_k . d = w_k**(-1/alpha)``, so that no loss rises; zero where a combination of the rows vanishes.

    A row of norm s alone is given the length ``s**((1 - alpha) / (1 + alpha))``, which is 1 for Nash bargaining.
    """
    norms = [exact.length(row) for row in rows]
    live = [k for k, norm in enumerate(norms) if norm]
    scale = max((norms[k] ** ((1.0 - alpha) / (1.0 + alpha)) for k in live), default=1.0)
    units = [[entry / Fraction(norms[k]) for entry in rows[k]] for k in live]
    apart = exact.length(exact.combination(exact.min_norm(units), units)) if live else 0.0
    answer = exact_programs.fair_direction(rows, alpha) if apart > 1.0 / STEADY else None
    none = [Fraction(0)] * len(rows[0])
    plain = rising(rows)

    def error(vector: Row, weights: Row | None = None) -> float:
        if weights is None:
            return plain(vector, None)
        found = plain(vector, None)
        for k in live:
            if weights[k] > 0 and answer is not None:
                wanted = float(weights[k]) ** (-1.0 / alpha)
                found = max(found, abs(float(exact.dot(rows[k], vector)) - wanted) / norms[k])
        return found

    if apart == 0.0:
        return Truth(rows, scale, none, True, error)
    return Truth(rows, scale, answer, answer is not None, error, apart)


def lengthened(rows: list[Row]) -> Truth:
    """MGDA's direction at the length of the sum, in a conflict; the sum of the rows without one."""
    total = [sum(column, Fraction(0)) for column in zip(*rows, strict=True)]
    if all(exact.dot(first, second) >= 0 for first in rows for second in rows):
        return Truth(rows, _longest(rows), [Fraction(3, 2) * entry for entry in total], True, rising(rows))
    shortest = exact.combination(exact.min_norm(rows), rows)
    return Truth(rows, _longest(rows), None if any(shortest) else shortest, not any(shortest), rising(rows))


def _longest(rows: list[Row]) -> float:
    return max(exact.length(row) for row in rows)


TRUTHS: dict[str, Callable[[list[Row], float], Truth]] = {
    "upgrad": lambda rows, _: projected(rows, exact.upgrad(rows)),
    "dualproj": lambda rows, _: projected(rows, exact.dualproj(rows)),
    "gem": lambda rows, _: projected(rows, exact.gem(rows)),
    "mgda": lambda rows, _: shortest(rows),
    "mgda_ub": lambda rows, _: shortest(rows),
    "cagrad": averse,
    "gradops": lambda rows, _: Truth(rows, _longest(rows), None, False, rising(rows)),
    "mmpareto": lambda rows, _: lengthened(rows),
    "nash_mtl": lambda rows, _: fair(rows, 1.0),
    "munba": lambda rows, _: fair(rows, 1.0),
    "fairgrad": lambda rows, _: fair(rows, 2.0),
}


# -- draws ---------------------------------------------------------------------------------------------------------


def drawn(family: str, seed: int, dtype: torch.dtype, exact_rows: int | None = None, most: int = 5) -> torch.Tensor:
    """A Jacobian of a family: 2 to ``most`` rows, fewer and more columns, plain or with rows up to 1e12 apart."""
    dice = random.Random(seed)
    rows = dice.randint(2, most) if exact_rows is None else exact_rows
    columns = dice.choice((max(1, rows // 2), rows - 1, rows, 2 * rows, 4 * rows))
    jacobian = samplers.DEPENDENT[family](seed, rows, columns)
    decades = dice.choice((0.0, 0.0, 1.0, 6.0))
    return samplers.with_row_scales(jacobian, decades, seed, exact=dice.random() < 0.5).to(dtype)


# -- judging -------------------------------------------------------------------------------------------------------


def faults(name: str, jacobian: torch.Tensor, rule: Combiner | None = None) -> Iterator[str]:
    """What is wrong with the direction and the certificate of a rule, in words with numbers.

    The direction is the one that a user gets, in the dtype of the rows. The certificate is about the weights, so it is
    held against their exact combination.
    """
    rule = create_combiner(name) if rule is None else rule
    dtype = jacobian.dtype
    truth = TRUTHS[name](exact.fractions_of(jacobian), torch.finfo(dtype).eps)
    losses = torch.ones(len(jacobian), dtype=torch.float64)
    direction = exact.fractions_of(rule.fresh()(jacobian, losses)[None])[0]
    yield from _direction_faults(truth, direction, dtype)
    outcome = rule.combine(Gradients.of(jacobian), losses)
    assert outcome.weights is not None
    if rule.certificate is not None:
        yield from _certificate_faults(truth, outcome.weights, rule.certificate.residual, SHORT[dtype])


def _direction_faults(truth: Truth, direction: Row, dtype: torch.dtype) -> Iterator[str]:
    if truth.scale == 0.0:
        if any(direction):
            yield "d is not zero where all rows are"
        return
    size, tolerance = exact.length(direction), TOLERANCE[dtype]
    rounding = 4.0 * torch.finfo(ADDED_IN[dtype]).eps * truth.scale
    short = size <= SHORT[dtype] * truth.scale + rounding
    right = None if truth.answer is None else exact.length(truth.answer)
    if truth.steady and right is not None and right <= SHORT[dtype] * truth.scale:
        if not short:
            yield f"|d| is {size / truth.scale:.1e} of the data's scale where the exact answer is {right:.1e}"
        return
    error = truth.error(direction, None)
    if error > tolerance * size + rounding and not (short and not truth.steady):
        yield f"violated by {error / size:.1e} of |d|" if size else "d is zero"
    if truth.steady and truth.answer is not None and not (short and truth.apart <= APART[dtype]):
        # what follows of violations up to the tolerance, for steps of the given reach
        allowed = math.sqrt(STEADY * tolerance) * truth.scale
        apart = exact.length([a - b for a, b in zip(direction, truth.answer, strict=True)])
        if apart > allowed:
            yield f"{apart / truth.scale:.1e} of the data's scale from the exact answer"


def _certificate_faults(truth: Truth, weights: torch.Tensor, residual: float, short: float) -> Iterator[str]:
    if truth.scale == 0.0:
        return
    exact_weights = [Fraction(weight) for weight in weights.tolist()]
    vector = exact.combination(exact_weights, truth.rows)
    size = exact.length(vector)
    if size <= short * truth.scale:
        vanishes = truth.steady and truth.answer is not None and not any(truth.answer)
        error = (size if vanishes else truth.error(vector, exact_weights)) / truth.scale
    else:
        error = truth.error(vector, exact_weights) / size
    if not residual >= 0.1 * error - FLOOR:
        yield f"the certificate says {residual:.1e} of an error of {error:.1e}"
