"""CAGrad's program against cvxpy, grid search, its limits and its certificate."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.solvers import conflict_averse, min_norm, project_dual_cone
from tests.solvers.helpers import KINDS, Array, drawn_jacobian, spread_over_decades

seeds = st.integers(0, 2**32 - 1)
radii = st.sampled_from([0.0, 0.1, 0.4, 0.9, 1.0, 3.0])


def best_worst(jacobian: Array, radius: float) -> float:
    """The largest ``min_k g_k . d`` in the ball, by cvxpy in the space of the gradients."""
    mean = jacobian.mean(axis=0)
    direction, worst = cp.Variable(jacobian.shape[1]), cp.Variable()
    ball = cp.norm(direction - mean) <= radius * np.linalg.norm(mean)
    problem = cp.Problem(cp.Maximize(worst), [jacobian @ direction >= worst, ball])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return float(worst.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [2, 3, 8, 12])
def test_the_worst_loss_falls_as_fast_as_cvxpy_can_make_it(kind: str, rows: int) -> None:
    for seed, (columns, radius) in enumerate([(2, 0.4), (rows, 0.9), (3 * rows, 0.2), (3 * rows, 2.0)]):
        jacobian = drawn_jacobian(kind, seed, rows, columns)
        weights, _ = conflict_averse(jacobian @ jacobian.T, radius)
        direction, mean = weights @ jacobian, jacobian.mean(axis=0)
        assert np.linalg.norm(direction - mean) <= radius * np.linalg.norm(mean) * (1.0 + 1e-6)
        size = np.linalg.norm(jacobian, axis=1).max() ** 2
        assert (jacobian @ direction).min() >= best_worst(jacobian, radius) - 1e-6 * size


@given(seeds, st.integers(1, 16), st.integers(1, 32), st.sampled_from(KINDS), radii, st.sampled_from([0.0, 4.0, 12.0]))
@settings(max_examples=300, deadline=None)
def test_is_certified_over_twelve_decades_in_every_kind(
    seed: int, rows: int, columns: int, kind: str, radius: float, decades: float
) -> None:
    jacobian = spread_over_decades(drawn_jacobian(kind, seed, rows, columns), seed, decades)
    weights, certificate = conflict_averse(jacobian @ jacobian.T, radius)
    assert np.isfinite(weights).all()
    # A square of d is known to the rounding of the products that it is the sum of, and so is what is promised to some
    # parts of it; where d vanishes, to the root of that, by which the shortest row could fall.
    allowed = 1e-10 if decades == 0.0 and kind == "gaussian" and columns > rows else 1e-3
    norms = np.linalg.norm(jacobian, axis=1)
    length, terms = np.linalg.norm(weights @ jacobian), np.abs(weights) @ norms
    if certificate.method == "Pareto-stationary":
        allowed = max(allowed, 1e-6 * norms.max() / norms[norms > 0.0].min())
    elif length > 0.0:
        allowed = max(allowed, 64.0 * np.finfo(float).eps * (terms / length) ** 2)
    assert certificate.residual <= allowed


@given(seeds, radii)
@settings(max_examples=40, deadline=None)
def test_two_gradients_against_a_grid(seed: int, radius: float) -> None:
    jacobian = drawn_jacobian("gaussian", seed, 2, 6)
    mean = jacobian.mean(axis=0)
    bound = radius * np.linalg.norm(mean)
    share = np.linspace(0.0, 1.0, 100_001)[:, None]
    points = share * jacobian[0] + (1.0 - share) * jacobian[1]
    dual = (points @ mean + bound * np.linalg.norm(points, axis=1)).min()
    weights, _ = conflict_averse(jacobian @ jacobian.T, radius)
    reached = (jacobian @ (weights @ jacobian)).min()
    assert reached == pytest.approx(dual, abs=1e-7 * np.sum(jacobian**2))


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_limits_of_the_radius(rows: int) -> None:
    jacobian = drawn_jacobian("gaussian", 4, rows, 20)
    gramian = jacobian @ jacobian.T
    np.testing.assert_array_equal(conflict_averse(gramian, 0.0)[0], np.full(rows, 1.0 / rows))
    shortest = min_norm(gramian)[0] @ jacobian
    far = conflict_averse(gramian, 1e6)[0] @ jacobian
    cosine = far @ shortest / np.linalg.norm(far) / np.linalg.norm(shortest)
    assert cosine == pytest.approx(1.0, abs=1e-9)


@given(seeds, st.integers(1, 10), st.sampled_from([0.1, 0.5, 2.0]), st.floats(-20, 20))
@settings(max_examples=60, deadline=None)
def test_the_scale_of_the_gradients_does_not_matter(seed: int, rows: int, radius: float, exponent: float) -> None:
    jacobian = drawn_jacobian("gaussian", seed, rows, 20)
    scaled = 10.0**exponent * jacobian
    np.testing.assert_allclose(
        conflict_averse(scaled @ scaled.T, radius)[0], conflict_averse(jacobian @ jacobian.T, radius)[0], rtol=1e-7
    )


def test_at_a_stationary_point_the_mean_is_projected() -> None:
    """Two opposite gradients and an orthogonal one: no direction lowers all, and the ball reaches the third."""
    jacobian = np.array([[1.0, 0.0], [-0.8, 0.0], [0.0, 1.0]])
    gramian = jacobian @ jacobian.T
    weights, certificate = conflict_averse(gramian, 0.5)
    np.testing.assert_allclose(weights @ jacobian, [0.0, 1.0 / 3.0], atol=1e-12)
    np.testing.assert_allclose(weights, project_dual_cone(gramian, np.full(3, 1.0 / 3.0))[0], atol=1e-12)
    assert certificate.method == "Pareto-stationary"


def test_opposite_gradients_within_a_small_ball() -> None:
    """The ball around the mean does not reach zero: the best is its nearest point to it."""
    jacobian = np.array([[3.0, 0.0], [-1.0, 0.0]])
    weights, _ = conflict_averse(jacobian @ jacobian.T, 0.25)
    np.testing.assert_allclose(weights @ jacobian, [0.75, 0.0], atol=1e-12)
    weights, _ = conflict_averse(jacobian @ jacobian.T, 1.5)
    np.testing.assert_allclose(weights @ jacobian, [0.0, 0.0], atol=1e-12)


def test_zero_rows_count_in_the_mean_alone() -> None:
    jacobian = np.vstack([drawn_jacobian("gaussian", 0, 2, 6), np.zeros(6)])
    weights, _ = conflict_averse(jacobian @ jacobian.T, 0.5)
    direction, mean = weights @ jacobian, jacobian.mean(axis=0)
    assert np.linalg.norm(direction - mean) == pytest.approx(0.5 * np.linalg.norm(mean), rel=1e-9)
    np.testing.assert_allclose(conflict_averse(np.zeros((3, 3)), 0.5)[0], 1.0 / 3.0)
    same = np.ones((3, 3))
    np.testing.assert_allclose(conflict_averse(same, 0.5)[0].sum(), 1.5)
