"""Nash bargaining and alpha-fair weights against their equation, closed forms, cvxpy and limits."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.solvers import alpha_fair, min_norm
from tests.solvers.helpers import KINDS, drawn_jacobian, left_open, spread_over_decades

seeds = st.integers(0, 2**32 - 1)
alphas = st.sampled_from([0.05, 0.3, 0.5, 1.0, 2.0, 5.0])


@given(seeds, st.integers(1, 16), alphas, st.sampled_from([0.0, 2.0]))
@settings(max_examples=200, deadline=None)
def test_solves_its_equation(seed: int, rows: int, alpha: float, decades: float) -> None:
    jacobian = spread_over_decades(drawn_jacobian("gaussian", seed, rows, rows + 8), seed, decades)
    gramian = jacobian @ jacobian.T
    weights, certificate = alpha_fair(gramian, alpha)
    assert (weights > 0).all()
    size = np.abs(gramian) @ weights
    np.testing.assert_allclose((gramian @ weights - weights ** (-1.0 / alpha)) / size, 0.0, atol=1e-10)
    assert certificate.residual <= 1e-10


@given(seeds, st.integers(1, 20), st.integers(1, 40), st.sampled_from(KINDS), alphas)
@settings(max_examples=200, deadline=None)
def test_is_certified_over_twelve_decades_in_every_kind(
    seed: int, rows: int, columns: int, kind: str, alpha: float
) -> None:
    jacobian = spread_over_decades(drawn_jacobian(kind, seed, rows, columns), seed, 12.0)
    weights, certificate = alpha_fair(jacobian @ jacobian.T, alpha)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert certificate.residual <= 1e-10 + 4.0 * left_open(jacobian, weights)


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_cvxpy_finds_no_better_bargain(rows: int) -> None:
    for seed in range(3):
        jacobian = drawn_jacobian("gaussian", seed, rows, 2 * rows)
        ours, _ = alpha_fair(jacobian @ jacobian.T)
        weights = cp.Variable(rows)
        problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(weights @ jacobian) - cp.sum(cp.log(weights))))
        problem.solve(solver=cp.CLARABEL)
        np.testing.assert_allclose(ours, weights.value, rtol=1e-4)
        assert 0.5 * np.sum((ours @ jacobian) ** 2) - np.log(ours).sum() <= problem.value + 1e-9


@given(seeds, st.integers(1, 20), st.sampled_from([0.0, 6.0]))
@settings(max_examples=60, deadline=None)
def test_the_bargain_has_a_squared_length_of_k(seed: int, rows: int, decades: float) -> None:
    jacobian = spread_over_decades(drawn_jacobian("gaussian", seed, rows, rows + 10), seed, decades)
    weights, _ = alpha_fair(jacobian @ jacobian.T)
    assert np.sum((weights @ jacobian) ** 2) == pytest.approx(rows, rel=1e-9)


@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(-0.999999, 1))
@settings(max_examples=80, deadline=None)
def test_two_gradients_bargain_in_closed_form(log_first: float, log_second: float, cosine: float) -> None:
    first, second = 10.0**log_first, 10.0**log_second
    cross = cosine * first * second
    weights, certificate = alpha_fair(np.array([[first**2, cross], [cross, second**2]]))
    np.testing.assert_allclose(weights, 1.0 / (np.array([first, second]) * np.sqrt(1.0 + cosine)), rtol=1e-7)
    assert certificate.method == "closed form"


@pytest.mark.parametrize("alpha", [0.1, 1.0, 3.0])
def test_orthogonal_gradients_have_a_closed_form(alpha: float) -> None:
    squares = np.array([1e-10, 1.0, 4.0, 1e8])
    weights, _ = alpha_fair(np.diag(squares), alpha)
    np.testing.assert_allclose(weights, squares ** (-alpha / (1.0 + alpha)), rtol=1e-10)


def test_limits_of_alpha() -> None:
    jacobian = drawn_jacobian("gaussian", 2, 3, 30)
    gramian = jacobian @ jacobian.T
    np.testing.assert_allclose(alpha_fair(gramian, 1e-3)[0], 1.0, rtol=2e-2)
    weights, _ = alpha_fair(gramian, 300.0)
    np.testing.assert_allclose(weights / weights.sum(), min_norm(gramian)[0], rtol=3e-2)


@given(seeds, st.integers(1, 8), alphas, st.floats(-20, 20))
@settings(max_examples=80, deadline=None)
def test_scales_as_the_equation_does(seed: int, rows: int, alpha: float, exponent: float) -> None:
    jacobian = drawn_jacobian("gaussian", seed, rows, 20)
    scaled = 10.0**exponent * jacobian
    ours, _ = alpha_fair(scaled @ scaled.T, alpha)
    np.testing.assert_allclose(
        ours * 10.0 ** (exponent * 2.0 * alpha / (1.0 + alpha)), alpha_fair(jacobian @ jacobian.T, alpha)[0], rtol=1e-6
    )


def test_zero_rows_get_no_weight() -> None:
    jacobian = drawn_jacobian("gaussian", 0, 4, 9)
    jacobian[2] = 0.0
    weights, _ = alpha_fair(jacobian @ jacobian.T, 2.0)
    live = [0, 1, 3]
    assert weights[2] == 0.0
    np.testing.assert_allclose(weights[live], alpha_fair(jacobian[live] @ jacobian[live].T, 2.0)[0], rtol=1e-12)
    np.testing.assert_array_equal(alpha_fair(np.zeros((3, 3)))[0], np.zeros(3))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("rows", [2, 3, 6])
def test_at_a_stationary_point_there_is_no_bargain(rows: int, alpha: float) -> None:
    jacobian = drawn_jacobian("stationary", 1, rows, 2 * rows)
    for scale in (1e-10, 1.0, 1e10):
        scaled = scale * jacobian
        weights, certificate = alpha_fair(scaled @ scaled.T, alpha)
        assert certificate.method == "Pareto-stationary"
        np.testing.assert_array_equal(weights, np.zeros(rows))
