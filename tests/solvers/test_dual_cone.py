"""The projection on the dual cone against cvxpy, closed forms and its optimality conditions."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt import NonFiniteError, SolverError
from mtopt.combiners import gramian_of
from mtopt.solvers import project_dual_cone, project_rows
from tests.solvers.helpers import KINDS, Array, drawn_jacobian, spread_over_decades

seeds = st.integers(0, 2**32 - 1)


def judged(jacobian: Array, vector: Array, within: list[int] | None = None) -> Array:
    """The projection of ``vector`` that cvxpy finds in the space of the gradients themselves."""
    rows = jacobian if within is None else jacobian[within]
    direction = cp.Variable(len(vector))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(direction - vector)), [rows @ direction >= 0])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return np.asarray(direction.value)


@pytest.mark.parametrize("kind", ["gaussian", "rank_deficient", "duplicated", "stationary"])
@pytest.mark.parametrize("rows", [2, 3, 6, 12])
def test_finds_the_projection_that_cvxpy_finds(kind: str, rows: int) -> None:
    for seed, columns in enumerate([2, rows, 2 * rows]):
        jacobian = drawn_jacobian(kind, seed, rows, columns)
        gramian = jacobian @ jacobian.T
        mean = np.full(rows, 1.0 / rows)
        weights, _ = project_dual_cone(gramian, mean)
        np.testing.assert_allclose(weights @ jacobian, judged(jacobian, mean @ jacobian), atol=2e-4)
        projections, _ = project_rows(gramian)
        for row, gradient in zip(projections, jacobian, strict=True):
            np.testing.assert_allclose(row @ jacobian, judged(jacobian, gradient), atol=2e-4)
        within = list(range(1, rows))
        weights, _ = project_dual_cone(gramian, np.eye(rows)[0], within)
        np.testing.assert_allclose(weights @ jacobian, judged(jacobian, jacobian[0], within), atol=2e-4)


def violation(gramian: Array, weights: Array, lower: Array) -> float:
    """How far the KKT conditions are from holding, in unit gradients over the length of the direction."""
    matrix = gramian.astype(np.longdouble)
    norms = np.sqrt(matrix.diagonal())
    slopes = matrix @ weights / norms
    slack = (weights - lower) * norms
    size = np.abs(weights * norms).max()
    assert (slack >= -1e-15 * size).all()
    worst = np.where(slack > 1e-15 * size, np.abs(slopes), -slopes).max()
    return float(worst / np.sqrt(weights @ matrix @ weights))


@given(seeds, st.integers(1, 16), st.integers(1, 24), st.sampled_from(KINDS), st.sampled_from([0.0, 3.0, 12.0]))
@settings(max_examples=300, deadline=None)
def test_meets_the_optimality_conditions_over_twelve_decades(
    seed: int, rows: int, columns: int, kind: str, decades: float
) -> None:
    """As far as its certificate says; a projection that cannot be told from zero has no weights."""
    jacobian = spread_over_decades(drawn_jacobian(kind, seed, rows, columns), seed, decades)
    gramian = jacobian @ jacobian.T
    if (gramian.diagonal() == 0).any():
        return  # a zero row has its own test
    allowed = 1e-10 if kind == "gaussian" else 1e-6
    mean = np.full(rows, 1.0 / rows)
    weights, certificate = project_dual_cone(gramian, mean)
    assert certificate.residual <= allowed
    if weights.any():
        assert violation(gramian, weights, mean) <= certificate.residual + 1e-15
    projections, certificate = project_rows(gramian)
    assert certificate.residual <= allowed
    for row, unit in zip(projections, np.eye(rows), strict=True):
        if row.any():
            assert violation(gramian, row, unit) <= certificate.residual + 1e-15


@given(seeds, st.integers(2, 20), st.sampled_from([0.0, 0.5, 0.9]), st.sampled_from([0.0, 12.0]))
@settings(max_examples=150, deadline=None)
def test_no_loss_rises_along_the_projection(seed: int, rows: int, conflict: float, decades: float) -> None:
    jacobian = drawn_jacobian("gaussian", seed, rows, 2 * rows)
    jacobian = spread_over_decades(jacobian - conflict * jacobian.mean(axis=0), seed, decades)
    gramian = jacobian @ jacobian.T
    for weights in (project_dual_cone(gramian, np.full(rows, 1.0 / rows))[0], project_rows(gramian)[0].mean(axis=0)):
        direction = weights @ jacobian
        slopes = jacobian @ direction / np.linalg.norm(jacobian, axis=1)
        assert slopes.min() >= -1e-9 * np.linalg.norm(direction)


@given(seeds, st.floats(-6, 6), st.floats(-0.999, -1e-6))
@settings(max_examples=60, deadline=None)
def test_two_rows_have_a_closed_form(seed: int, exponent: float, cosine: float) -> None:
    first, second = 1.0, 10.0**exponent
    cross = cosine * first * second
    gramian = np.array([[first**2, cross], [cross, second**2]])
    projections, certificate = project_rows(gramian)
    np.testing.assert_allclose(projections, [[1.0, -cross / second**2], [-cross / first**2, 1.0]], rtol=1e-12)
    assert certificate.method == "closed form"
    shares = np.random.default_rng(seed).dirichlet([1.0, 1.0])
    weights, _ = project_dual_cone(gramian, shares)
    slopes = gramian @ shares
    np.testing.assert_allclose(weights, shares + np.maximum(-slopes, 0.0) / gramian.diagonal(), rtol=1e-9)


@pytest.mark.parametrize("rows", [1, 2, 3, 12])
def test_without_a_conflict_nothing_changes(rows: int) -> None:
    jacobian = np.abs(drawn_jacobian("gaussian", 0, rows, 5))
    gramian = jacobian @ jacobian.T
    projections, certificate = project_rows(gramian)
    np.testing.assert_array_equal(projections, np.eye(rows))
    assert certificate.residual <= 1e-15
    shares = np.random.default_rng(0).dirichlet(np.ones(rows))
    np.testing.assert_array_equal(project_dual_cone(gramian, shares)[0], shares)


@pytest.mark.parametrize("rows", [2, 3, 12])
def test_zero_rows_constrain_nothing(rows: int) -> None:
    jacobian = drawn_jacobian("gaussian", 3, rows, 4)
    jacobian[0] = 0.0
    live, _ = project_rows(jacobian[1:] @ jacobian[1:].T)
    projections, _ = project_rows(jacobian @ jacobian.T)
    np.testing.assert_allclose(projections[1:, 1:], live, atol=1e-12)
    np.testing.assert_array_equal(projections[0], np.eye(rows)[0])
    np.testing.assert_array_equal(projections[:, 0], np.eye(rows)[0])
    zero = np.zeros((rows, rows))
    np.testing.assert_array_equal(project_rows(zero)[0], np.eye(rows))
    np.testing.assert_array_equal(project_dual_cone(zero, np.ones(rows))[0], np.ones(rows))


@pytest.mark.parametrize("length", [1.0, 3.0, 1e6])
def test_opposite_rows_project_on_zero(length: float) -> None:
    gradient = drawn_jacobian("gaussian", 5, 1, 7)[0]
    jacobian = np.stack([gradient, -length * gradient])
    for dtype in (torch.float64, torch.float32):
        rows = torch.from_numpy(jacobian).to(dtype)
        projections, _ = project_rows(gramian_of(rows))
        size = np.abs(projections) @ np.linalg.norm(jacobian, axis=1)
        assert (np.linalg.norm(projections @ jacobian, axis=1) <= 2e-6 * size).all()


@given(seeds, st.integers(3, 12), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_float32_rows_that_depend_on_each_other_are_solved(seed: int, rows: int, rank: int) -> None:
    jacobian = drawn_jacobian("rank_deficient", seed, rows, 2 * rank)
    gramian = gramian_of(torch.from_numpy(jacobian).float())
    assert project_rows(gramian)[1].residual <= 1e-10
    assert project_dual_cone(gramian, np.full(rows, 1.0 / rows))[1].residual <= 1e-10


@given(seeds, st.integers(1, 12), st.floats(-20, 20))
@settings(max_examples=60, deadline=None)
def test_the_scale_of_the_gradients_does_not_matter(seed: int, rows: int, exponent: float) -> None:
    jacobian = drawn_jacobian("gaussian", seed, rows, 20)
    scaled = 10.0**exponent * jacobian
    np.testing.assert_allclose(
        project_rows(scaled @ scaled.T)[0], project_rows(jacobian @ jacobian.T)[0], rtol=1e-8, atol=1e-10
    )


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"weights must have shape \(2,\)"):
        project_dual_cone(np.eye(2), np.ones(3))
    with pytest.raises(NonFiniteError):
        project_rows(np.array([[1.0, np.nan], [np.nan, 1.0]]))
    for rows in (2, 3):
        matrix = np.full((rows, rows), -1.5)
        np.fill_diagonal(matrix, 1.0)
        with pytest.raises(SolverError, match="not positive semi-definite"):
            project_rows(matrix)
        with pytest.raises(SolverError, match="not positive semi-definite"):
            project_dual_cone(matrix, np.ones(rows))
