"""Non-negative least squares: the exchanges against Lawson and Hanson, and the optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from mtopt import SolverError
from mtopt.solvers._gramian import unit_rows
from mtopt.solvers._nonnegative import nonnegative, nonnegative_columns, require_cosine, semidefinite_root
from tests.solvers.helpers import KINDS, Array, drawn_jacobian

seeds = st.integers(0, 2**32 - 1)


def cosines_of(jacobian: Array) -> Array:
    return unit_rows(jacobian @ jacobian.T)[0]


@given(seeds, st.sampled_from([3, 8, 9, 20, 40]), st.sampled_from(KINDS), st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=120, deadline=None)
def test_meets_the_optimality_conditions_whatever_the_method(seed: int, rows: int, kind: str, wide: float) -> None:
    jacobian = drawn_jacobian(kind, seed, rows, max(int(rows * wide), 2))
    root, matrix = semidefinite_root(cosines_of(jacobian + 1e-300))
    targets = -root @ np.random.default_rng(seed).standard_normal((rows, 4))
    found = nonnegative_columns(matrix, root, targets)
    slopes = root.T @ (root @ found - targets)
    size = 1e-11 * (1.0 + found.sum(axis=0) + np.abs(targets).sum(axis=0))
    assert (found >= 0).all()
    assert (slopes >= -size).all()
    assert (np.abs(slopes * (found > 0)) <= size).all()


@given(seeds, st.integers(9, 40))
@settings(max_examples=60, deadline=None)
def test_the_exchanges_find_what_nnls_finds(seed: int, rows: int) -> None:
    root, matrix = semidefinite_root(cosines_of(drawn_jacobian("gaussian", seed, rows, 3 * rows)))
    targets = np.random.default_rng(seed).standard_normal((rows, 5))
    found = nonnegative_columns(matrix, root, targets)
    for column, target in zip(found.T, targets.T, strict=True):
        np.testing.assert_allclose(column, nnls(root, target)[0], atol=1e-10)


@given(seeds, st.sampled_from([3, 24, 25, 60]), st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_one_column_alone_has_the_same_answer(seed: int, rows: int, kind: str) -> None:
    root, matrix = semidefinite_root(cosines_of(drawn_jacobian(kind, seed, rows, 2 * rows)))
    rng = np.random.default_rng(seed)
    target = root @ rng.standard_normal(rows)
    together = nonnegative_columns(matrix, root, target[:, None])[:, 0]
    for guess in (None, rng.random(rows) < 0.5):
        found = nonnegative(matrix, root, target, guess)
        assert (found >= 0.0).all()
        # the combination is unique, its weights need not be
        np.testing.assert_allclose(root @ found, root @ together, atol=1e-6)
        slopes = root.T @ (root @ found - target)
        size = 1e-11 * (1.0 + found.sum() + np.abs(target).sum())
        assert (np.where(found > 0.0, np.abs(slopes), -slopes) <= size).all()


@given(seeds, st.integers(9, 30))
@settings(max_examples=30, deadline=None)
def test_any_guess_gives_the_same_answer(seed: int, rows: int) -> None:
    root, matrix = semidefinite_root(cosines_of(drawn_jacobian("gaussian", seed, rows, 3 * rows)))
    rng = np.random.default_rng(seed)
    targets = rng.standard_normal((rows, 3))
    for guess in (np.zeros((rows, 3), bool), np.ones((rows, 3), bool), rng.random((rows, 3)) < 0.5):
        np.testing.assert_allclose(
            nonnegative_columns(matrix, root, targets, guess), nonnegative_columns(matrix, root, targets), atol=1e-10
        )


@pytest.mark.parametrize("rows", [1, 2, 5, 12])
@pytest.mark.parametrize("kind", KINDS)
def test_the_root_gives_the_matrix_back(kind: str, rows: int) -> None:
    cosines = cosines_of(drawn_jacobian(kind, 1, rows, 6) + 1e-300)
    root, matrix = semidefinite_root(cosines)
    np.testing.assert_allclose(root.T @ root, matrix, atol=1e-14)
    np.testing.assert_allclose(matrix, cosines, atol=1e-13)


def test_a_slightly_indefinite_matrix_becomes_the_nearest_semidefinite_one() -> None:
    cosines = np.array([[1.0, 1.0 + 1e-7], [1.0 + 1e-7, 1.0]])
    root, matrix = semidefinite_root(cosines)
    assert np.linalg.eigvalsh(matrix)[0] >= -1e-15
    np.testing.assert_allclose(matrix, cosines, atol=2e-7)
    np.testing.assert_allclose(root.T @ root, matrix, atol=1e-15)


def test_a_matrix_that_is_no_gramian_is_refused() -> None:
    with pytest.raises(SolverError, match="not positive semi-definite"):
        semidefinite_root(np.array([[1.0, 1.5], [1.5, 1.0]]))
    with pytest.raises(SolverError, match="not positive semi-definite"):
        require_cosine(-1.5)
    assert require_cosine(-1.0 - 1e-7) == 1.0
