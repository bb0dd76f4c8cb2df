"""The program of FERERO: its optimality conditions over 12 decades, cvxpy, and gradients that leave it no solution."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.linalg import DOUBLE_PRECISION
from mtopt.solvers._ray_step import ray_step
from tests.solvers.helpers import KINDS, Array, drawn_jacobian, left_open, spread_over_decades


def drawn_rates(seed: int, count: int) -> tuple[Array, Array]:
    """A vector y and a positive unit vector u across it."""
    rng = np.random.default_rng(seed)
    ray = rng.uniform(0.1, 1.0, count)
    ray /= np.linalg.norm(ray)
    target = rng.standard_normal(count)
    return target - (target @ ray) * ray, ray


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(KINDS),
    st.integers(1, 8),
    st.integers(1, 14),
    st.sampled_from([0.0, 6.0, 12.0]),
)
@settings(max_examples=120, deadline=None)
def test_certified_over_twelve_decades(seed: int, kind: str, rows: int, columns: int, decades: float) -> None:
    jacobian = spread_over_decades(drawn_jacobian(kind, seed, rows, columns), seed, decades)
    target, ray = drawn_rates(seed, rows)
    weights, certificate = ray_step(jacobian @ jacobian.T, target, ray, DOUBLE_PRECISION)
    assert np.isfinite(weights).all()
    norms = np.linalg.norm(jacobian, axis=1)
    length = np.linalg.norm(weights @ jacobian)
    open_ = 4.0 * left_open(jacobian, weights)
    if length > 0.0:  # a wish is rounded, too, and what it has of the ray is taken off: most felt by the shortest row
        open_ += 64.0 * np.finfo(np.float64).eps / norms[norms > 0.0].min() / length
    assert certificate.residual <= 1e-10 + open_


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_is_the_optimum_that_cvxpy_finds(rows: int) -> None:
    for seed in range(5):
        jacobian = drawn_jacobian("gaussian", seed, rows, rows + 2)
        target, ray = drawn_rates(seed, rows)
        direction, along, worst = cp.Variable(rows + 2), cp.Variable(), cp.Variable()
        constraints = [jacobian @ direction == target + along * ray, jacobian @ direction >= worst]
        cp.Problem(cp.Minimize(0.5 * cp.sum_squares(direction) - worst), constraints).solve(cp.CLARABEL)
        weights, _ = ray_step(jacobian @ jacobian.T, target, ray, DOUBLE_PRECISION)
        np.testing.assert_allclose(weights @ jacobian, direction.value, atol=2e-5 * np.linalg.norm(direction.value))


def test_rates_that_cannot_be_had_are_approached() -> None:
    """Three gradients in two dimensions, and u in the span of the rates: one combination of the rates is not free."""
    ray = np.full(3, 3.0**-0.5)
    jacobian = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])  # the second and third loss fall alike
    target = np.array([0.0, 1.0, -1.0])
    weights, _ = ray_step(jacobian @ jacobian.T, target, ray, DOUBLE_PRECISION)
    # nothing across the ray can be had of the wish; what is left is the descent along it
    np.testing.assert_allclose(weights @ jacobian, [1.0, 0.0], atol=1e-12)
    # and with a wish that can be had in part: rates (2, -1, -1), and those of the second and third in their mean
    weights, _ = ray_step(jacobian @ jacobian.T, np.array([2.0, -3.0, 1.0]), ray, DOUBLE_PRECISION)
    rates = jacobian @ (weights @ jacobian)
    np.testing.assert_allclose(rates - rates.mean(), [2.0, -1.0, -1.0], atol=1e-12)


def test_a_zero_gradient_keeps_its_loss() -> None:
    ray = np.array([0.6, 0.8])
    target = np.array([0.8, -0.6])
    weights, certificate = ray_step(np.diag([0.0, 4.0]), target, ray, DOUBLE_PRECISION)
    assert weights[0] == 0.0
    # the rates are (0, y): across the ray 0.6 y, wanted -1
    assert 4.0 * weights[1] == pytest.approx(-1.0 / 0.6)
    assert "not all rates" in certificate.method
    assert ray_step(np.zeros((2, 2)), target, ray, DOUBLE_PRECISION)[0].tolist() == [0.0, 0.0]
