"""Answers to CAGrad's and Nash-MTL's programs to dozens of digits, each with its own proof. No code of mtopt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import mpmath

from tests.solvers.exact import Row, combination, dot, length, mean_of, min_norm, project, root

PROVED = Fraction(1, 10**24)
"""Duality gap, over the value of the program, at which CAGrad's is solved."""


@dataclass(frozen=True)
class Averse:
    """CAGrad's answer: ``value`` is the largest ``min_k g_k . d`` in the ball, attained by ``vector``.

    ``terms`` is what the lengths of the rows, each times its weight in the dual program, add up to.
    """

    value: Fraction
    vector: Row
    mean: Row
    bound: Fraction
    terms: float = 0.0


def conflict_averse(rows: Sequence[Row], radius: float) -> Averse:
    """``argmax_d min_k g_k . d`` in the ball of ``radius * ||g_0||`` around the mean g_0; zero rows count in g_0 alone.

    Any weights of the simplex bound the value from above, ``g_w . g_0 + c ||g_0|| ||g_w||``, and any vector of the ball
    from below: they are wrong only where both miss, and their difference is asked to be below :data:`PROVED`.

    The best weights make ``g_w + t g_0`` the shortest vector of a hull, for the t with ``||g_w|| = c ||g_0|| t``.
    Between the t where its support changes, ``g_w`` moves along a line, on which t is the root of a quadratic.
    """
    live = [row for row in rows if any(row)]
    mean = mean_of(rows)
    bound = Fraction(radius) * root(dot(mean, mean))
    if not live or bound == 0:
        return Averse(min((dot(row, mean) for row in live), default=Fraction(0)), mean, mean, bound)
    low, high = Fraction(0), 2 * root(max(dot(row, row) for row in live)) / bound
    below, above = _pulled(live, mean, low), _pulled(live, mean, high)
    if not any(combination(below, live)):
        nearest = project(live, mean).vector
        step = [a - b for a, b in zip(nearest, mean, strict=True)]
        if dot(step, step) <= bound**2:
            return Averse(Fraction(0), nearest, mean, bound)
    for _ in range(400):
        step = _crossing(low, high, combination(below, live), combination(above, live), bound)
        share = (step - low) / (high - low)
        weights = [a + share * (b - a) for a, b in zip(below, above, strict=True)]
        answer = _proved(live, weights, mean, bound)
        if answer is not None:
            return answer
        for at in (step, (low + high) / 2):
            at = Fraction(float(at))  # short numbers; the root itself is found on the line
            if low < at < high:
                weights = _pulled(live, mean, at)
                pulled = combination(weights, live)
                if dot(pulled, pulled) > (bound * at) ** 2:
                    low, below = at, weights
                else:
                    high, above = at, weights
    raise AssertionError("no proof of CAGrad's answer was found")


def _pulled(rows: Sequence[Row], mean: Row, step: Fraction) -> Row:
    """Weights of the shortest convex combination of the rows ``g_k + t g_0``."""
    return min_norm([[a + step * b for a, b in zip(row, mean, strict=True)] for row in rows])


def _crossing(low: Fraction, high: Fraction, below: Row, above: Row, bound: Fraction) -> Fraction:
    """The t in between where a vector on the line from ``below`` to ``above`` is ``bound * t`` long."""
    move = [(b - a) / (high - low) for a, b in zip(below, above, strict=True)]
    start = [a - low * m for a, m in zip(below, move, strict=True)]
    # ||start + t move||² = bound² t²
    square, linear, constant = bound**2 - dot(move, move), dot(start, move), dot(start, start)
    if square == 0:
        found = [-constant / (2 * linear)] if linear else []
    else:
        inner = linear**2 + square * constant
        turn = root(inner) if inner > 0 else Fraction(0)
        found = [(linear + turn) / square, (linear - turn) / square]
    found = [t for t in found if low <= t <= high]
    return found[0] if found else (low + high) / 2


def _proved(rows: Sequence[Row], weights: Row, mean: Row, bound: Fraction) -> Averse | None:
    """The vector of these weights, if it attains their bound."""
    pulled = combination(weights, rows)
    size = root(dot(pulled, pulled))
    if size == 0:
        return None
    vector = [a + bound / size * b for a, b in zip(mean, pulled, strict=True)]
    value, least = dot(pulled, mean) + bound * size, min(dot(row, vector) for row in rows)
    if value - least > PROVED * max(abs(value), bound * size):
        return None
    terms = sum(float(weight) * length(row) for weight, row in zip(weights, rows, strict=True))
    return Averse(value, vector, mean, bound, terms)


def fair_weights(rows: Sequence[Row], alpha: float, digits: int = 80) -> list[mpmath.mpf] | None:
    """The w > 0 with ``G w = w**(-1 / alpha)``, by damped Newton steps; None where a combination of the rows vanishes.

    A solution exists where a direction lowers all losses, which the exact shortest vector of the hull tells. Zero rows
    have no part in it and weight 0.
    """
    live = [k for k, row in enumerate(rows) if any(row)]
    if len(live) < len(rows):
        found = fair_weights([rows[k] for k in live], alpha, digits) if live else None
        if found is None:
            return None
        return [found[live.index(k)] if k in live else mpmath.mpf(0) for k in range(len(rows))]
    if not any(combination(min_norm(rows), rows)):
        return None
    with mpmath.workdps(digits):
        norms = [mpmath.sqrt(_number(dot(row, row))) for row in rows]
        size, power = len(rows), 1 / mpmath.mpf(alpha)
        cosines = mpmath.matrix(size, size)
        for i in range(size):
            for j in range(size):
                cosines[i, j] = _number(dot(rows[i], rows[j])) / norms[i] / norms[j]
        # w = v / s: the equation is s_k (C v)_k = (v_k / s_k)**(-power)
        scales = [norm ** (power - 1) for norm in norms]
        vector = mpmath.matrix([scale ** (1 / (1 + power)) for scale in scales])
        for _ in range(2000):
            slopes = cosines * vector
            wanted = [scales[k] * vector[k] ** (-power) for k in range(size)]
            error = max(abs(slopes[k] / wanted[k] - 1) for k in range(size))
            if error < mpmath.mpf(10) ** (10 - digits):
                return [vector[k] / norms[k] for k in range(size)]
            system = cosines.copy()
            for k in range(size):
                system[k, k] += power * wanted[k] / vector[k]
            change = mpmath.lu_solve(system, mpmath.matrix([wanted[k] - slopes[k] for k in range(size)]))
            ratios = [change[k] / vector[k] for k in range(size)]
            decrement = mpmath.sqrt(sum(change[k] * (wanted[k] - slopes[k]) for k in range(size)))
            share = min([mpmath.mpf(1), *(mpmath.mpf("0.9") / -r for r in ratios if r < -0.9)])
            if power == 1 and decrement > 0.25:
                share = min(share, 1 / (1 + decrement))  # the objective is self-concordant
            vector = mpmath.matrix([vector[k] + share * change[k] for k in range(size)])
    raise AssertionError("Newton's method did not settle")


def _number(fraction: Fraction) -> mpmath.mpf:
    return mpmath.mpf(fraction.numerator) / mpmath.mpf(fraction.denominator)


def fair_direction(rows: Sequence[Row], alpha: float) -> Row | None:
    """The vector of :func:`fair_weights`, to the digits of float64 in each weight and more."""
    weights = fair_weights(rows, alpha)
    if weights is None:
        return None
    return combination([Fraction(mpmath.nstr(weight, 40)) for weight in weights], rows)
