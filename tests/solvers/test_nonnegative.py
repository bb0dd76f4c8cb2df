"""Non-negative least squares: the exchanges against Lawson and Hanson, and the optimality conditions."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from mtopt.linalg import normalize_gramian, take_semidefinite_root
from mtopt.solvers._nonnegative import exchange, nonnegative, one_at_a_time
from tests.solvers.helpers import KINDS, Array, drawn_jacobian

seeds = st.integers(0, 2**32 - 1)


def cosines_of(jacobian: Array) -> Array:
    return normalize_gramian(jacobian @ jacobian.T)[0]


@given(seeds, st.sampled_from([3, 16, 17, 40]), st.sampled_from(KINDS), st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=120, deadline=None)
def test_meets_the_optimality_conditions_whatever_the_method(seed: int, rows: int, kind: str, wide: float) -> None:
    jacobian = drawn_jacobian(kind, seed, rows, max(int(rows * wide), 2))
    root, matrix = take_semidefinite_root(cosines_of(jacobian + 1e-300))
    target = -root @ np.random.default_rng(seed).standard_normal(rows)
    found = nonnegative(matrix, root, target)
    slopes = root.T @ (root @ found - target)
    size = 1e-11 * (1.0 + found.sum() + np.abs(target).sum())
    assert (found >= 0).all()
    assert (np.where(found > 0.0, np.abs(slopes), -slopes) <= size).all()


@given(seeds, st.integers(9, 40))
@settings(max_examples=60, deadline=None)
def test_the_exchanges_find_what_nnls_finds_from_any_guess(seed: int, rows: int) -> None:
    root, matrix = take_semidefinite_root(cosines_of(drawn_jacobian("gaussian", seed, rows, 3 * rows)))
    rng = np.random.default_rng(seed)
    target = rng.standard_normal(rows)
    expected = nnls(root, target)[0]
    np.testing.assert_allclose(one_at_a_time(matrix, root, target), expected, atol=1e-10)
    for guess in (None, np.zeros(rows, bool), np.ones(rows, bool), rng.random(rows) < 0.5):
        found = exchange(matrix, -target @ root, guess)
        assert found is not None
        np.testing.assert_allclose(found, expected, atol=1e-10)


def test_an_answer_of_scipy_that_is_none_is_mended() -> None:
    """Four of five rows of 1 and -1 as constraints on the fifth: ``x = (1/2, 0, 1/2, 0)`` makes all slopes zero."""
    signs = np.array([[1, -1, 1, -1, -1], [1, -1, -1, 1, 1], [-1, -1, 1, -1, 1], [-1, 1, -1, -1, -1], [1, 1, 1, -1, 1]])
    root, matrix = take_semidefinite_root(signs @ signs.T / 5.0)
    found = nonnegative(matrix[1:, 1:], root[:, 1:], -root[:, 0])
    np.testing.assert_allclose(found, [0.5, 0.0, 0.5, 0.0], atol=1e-12)
