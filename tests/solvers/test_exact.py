"""The exact answers are right: closed forms, conditions of optimality without rounding, and cvxpy."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

from mtopt.testing import samplers
from tests.solvers import exact, exact_programs

FAMILIES = [samplers.generic, samplers.conflicting, *samplers.DEPENDENT.values()]


def rows_of(family: int, seed: int, dtype: torch.dtype = torch.float64) -> list[exact.Row]:
    rows = 2 + seed % 4
    jacobian = FAMILIES[family](seed, rows, 1 + seed % 7)
    return exact.fractions_of(samplers.with_row_scales(jacobian, 3.0 * (seed % 3), seed).to(dtype))


@pytest.mark.parametrize("family", range(len(FAMILIES)))
def test_projections_meet_the_conditions_of_optimality_exactly(family: int) -> None:
    for seed in range(12):
        rows = rows_of(family, seed, (torch.float64, torch.float32, torch.bfloat16)[seed % 3])
        for point in (rows[0], exact.mean_of(rows)):
            found = exact.project(rows, point)
            moved = exact.combination(found.steps, rows)
            assert found.vector == [a + b for a, b in zip(point, moved, strict=True)]
            products = [exact.dot(row, found.vector) for row in rows]
            assert min(products) >= 0
            assert min(found.steps) >= 0
            assert not any(product * step for product, step in zip(products, found.steps, strict=True))


@pytest.mark.parametrize("family", range(len(FAMILIES)))
def test_shortest_vectors_meet_the_conditions_of_optimality_exactly(family: int) -> None:
    for seed in range(12):
        rows = rows_of(family, seed)
        weights = exact.min_norm(rows)
        vector = exact.combination(weights, rows)
        assert min(weights) >= 0
        assert sum(weights) == 1
        assert min(exact.dot(row, vector) for row in rows) == exact.dot(vector, vector)


def test_closed_forms() -> None:
    a, b = [Fraction(3), Fraction(4)], [Fraction(-1), Fraction(0)]
    assert exact.project([b], a).vector == [0, 4]
    assert exact.project([a, [-x for x in a]], [Fraction(4), Fraction(-3)]).vector == [4, -3]
    assert exact.upgrad([a, [-x for x in a]])[0] == [0, 0]
    assert exact.dualproj([a, a])[0] == a
    assert exact.min_norm([a, [-x for x in a]]) == [Fraction(1, 2)] * 2
    assert exact.length(a) == 5.0
    assert exact.root(Fraction(9, 16)) == Fraction(3, 4)
    assert abs(float(exact.root(Fraction(2, 10**40))) / (2**0.5 * 1e-20) - 1.0) < 1e-15
    assert exact.fractions_of(torch.tensor([[0.1]])) == [[Fraction(float(np.float32(0.1)))]]


def test_two_fair_weights_have_a_closed_form() -> None:
    a, b = exact.fractions_of(samplers.generic(1, 2, 5))
    cosine = float(exact.dot(a, b)) / exact.length(a) / exact.length(b)
    found = exact_programs.fair_weights([a, b], 1.0)
    assert found is not None
    for weight, row in zip(found, (a, b), strict=True):
        assert abs(float(weight) * exact.length(row) * (1.0 + cosine) ** 0.5 - 1.0) < 1e-14
    assert exact_programs.fair_weights([a, [-x for x in a], b], 1.0) is None


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_fair_weights_solve_their_equation(alpha: float) -> None:
    for seed in range(4):
        rows = exact.fractions_of(samplers.with_row_scales(samplers.generic(seed, 4, 6), 3.0, seed))
        weights = exact_programs.fair_weights(rows, alpha)
        assert weights is not None
        vector = exact_programs.fair_direction(rows, alpha)
        assert vector is not None
        for weight, row in zip(weights, rows, strict=True):
            with mpmath.workdps(60):
                wanted = weight ** (-1 / mpmath.mpf(alpha))
                product = exact.dot(row, vector)
                assert abs(mpmath.mpf(product.numerator) / product.denominator / wanted - 1) < 1e-25


@pytest.mark.parametrize("family", range(len(FAMILIES)))
def test_cagrad_lies_in_its_ball_and_attains_a_bound_from_above(family: int) -> None:
    """The proof by weak duality is made inside; here against cvxpy, which knows neither the proof nor the path."""
    import cvxpy

    for seed in range(0, 12, 3):
        jacobian = FAMILIES[family](seed, 2 + seed % 4, 3 + seed % 5)
        found = exact_programs.conflict_averse(exact.fractions_of(jacobian), 0.5)
        step = [a - b for a, b in zip(found.vector, found.mean, strict=True)]
        assert exact.dot(step, step) <= found.bound**2 * (1 + Fraction(1, 10**20))
        live = jacobian.numpy()[jacobian.norm(dim=1).numpy() > 0]
        direction, worst = cvxpy.Variable(jacobian.shape[1]), cvxpy.Variable()
        mean = jacobian.mean(0).numpy()
        ball = cvxpy.norm(direction - mean) <= 0.5 * float(np.linalg.norm(mean))
        value = cvxpy.Problem(cvxpy.Maximize(worst), [ball, live @ direction >= worst]).solve(solver="CLARABEL")
        assert abs(value - float(found.value)) <= 1e-6 * float((jacobian**2).sum())
