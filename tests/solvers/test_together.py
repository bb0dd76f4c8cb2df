"""Many programs with one matrix: each is solved as it would be alone, or left, and what is left is told."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

from mtopt.linalg import normalize_gramian
from mtopt.solvers import project_rows
from mtopt.solvers._together import PATIENT, guess_together, solve_together
from tests.solvers.helpers import Array, drawn_jacobian


def cosines_of(rows: int, columns: int, seed: int = 0) -> Array:
    jacobian = drawn_jacobian("gaussian", seed, rows, columns)
    return normalize_gramian(jacobian @ jacobian.T)[0]


@pytest.mark.parametrize("columns", [60, 120, 600])
def test_each_is_what_nnls_finds(columns: int) -> None:
    cosines = cosines_of(60, columns)
    values, solved = solve_together(cosines, cosines)
    assert solved.all()
    assert (values >= 0.0).all()
    root = np.linalg.cholesky(cosines).T
    for place in range(0, 60, 7):
        expected = nnls(root, -root[:, place])[0]
        np.testing.assert_allclose(values[place], expected, atol=1e-11 * (1.0 + expected.sum()))
    after = values @ cosines + cosines
    assert np.where(values > 0.0, np.abs(after), -after).max() <= 1e-13 * (1.0 + values.sum(axis=1).max())


def test_what_does_not_settle_is_left() -> None:
    """Rows that nearly are opposite in pairs: conjugate gradients in single precision come to nothing."""
    jacobian = drawn_jacobian("gaussian", 1, 40, 100)
    jacobian[20:] = -jacobian[:20] + 1e-3 * jacobian[20:]
    cosines = normalize_gramian(jacobian @ jacobian.T)[0]
    values, solved = solve_together(cosines, cosines)
    assert not solved.all()
    after = values[solved] @ cosines + cosines[solved]
    missed = np.where(values[solved] > 0.0, np.abs(after), -after).max(initial=0.0)
    assert missed <= 1e-13 * (1.0 + values[solved].sum(axis=1).max(initial=0.0))


def test_the_guess_of_the_supports_is_nearly_right_where_gradients_depend_on_each_other() -> None:
    cosines = cosines_of(64, 48)
    guess = guess_together(cosines.astype(np.float32), cosines.astype(np.float32), PATIENT) > 0.0
    root = drawn_jacobian("gaussian", 0, 64, 48)
    root = (root / np.linalg.norm(root, axis=1, keepdims=True)).T
    wrong = [np.count_nonzero((nnls(root, -root[:, k])[0] > 0.0) ^ guess[k]) for k in range(64)]
    assert np.mean(wrong) <= 2.0


@pytest.mark.parametrize(("rows", "columns"), [(200, 200), (200, 900), (200, 150), (96, 60), (96, 24)])
def test_projections_of_many_rows_are_exact(rows: int, columns: int) -> None:
    """Solved together, guessed together, and all zero (24 columns): the conditions in extended precision."""
    jacobian = drawn_jacobian("gaussian", 3, rows, columns)
    projections, certificate = project_rows(jacobian @ jacobian.T)
    assert certificate.residual <= 1e-11
    jacobian = (jacobian / np.linalg.norm(jacobian, axis=1, keepdims=True)).astype(np.longdouble)
    projections, certificate = project_rows((jacobian @ jacobian.T).astype(float))
    directions = projections @ jacobian
    lengths = np.sqrt((directions * directions).sum(axis=1))
    assert (lengths == 0.0).all() == (columns == 24)
    steps, products = projections - np.eye(rows), directions @ jacobian.T
    assert steps.min() >= -1e-15 or columns == 24
    live = lengths > 0.0
    violation = np.where(steps[live] > 0.0, np.abs(products[live]), -products[live])
    assert (violation / lengths[live, None]).max(initial=0.0) <= certificate.residual + 1e-15


def test_one_vanishing_combination_tells_that_all_projections_are_zero() -> None:
    """Rows that sum to zero: no direction lowers any of the losses and raises none; and one more row that is free."""
    jacobian = drawn_jacobian("gaussian", 5, 80, 100)
    jacobian -= jacobian.mean(axis=0)
    projections, certificate = project_rows(jacobian @ jacobian.T)
    assert not projections.any()
    assert certificate.residual == 0.0
    free = np.vstack([jacobian, drawn_jacobian("gaussian", 6, 1, 100)])
    projections, _ = project_rows(free @ free.T)
    assert not projections[:80].any()
    part = free[80] - np.linalg.lstsq(jacobian.T, free[80], rcond=None)[0] @ jacobian
    np.testing.assert_allclose(projections[80] @ free, part, atol=1e-9)
