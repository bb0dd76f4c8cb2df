"""Non-negative least squares on inner products: the conditions it is to meet, and steps that stay bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from mtopt.linalg import normalize_gramian
from mtopt.solvers._active_set import nonnegative_within
from tests.solvers.helpers import KINDS, Array, drawn_jacobian

EPSILON = 1e-15
seeds = st.integers(0, 2**32 - 1)


def cosines_of(jacobian: Array) -> Array:
    return normalize_gramian(jacobian @ jacobian.T)[0]


@given(seeds, st.integers(1, 24), st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=100, deadline=None)
def test_finds_the_projection_that_nnls_finds(seed: int, rows: int, wide: float) -> None:
    jacobian = drawn_jacobian("gaussian", seed, rows, max(int(rows * wide), 1))
    jacobian /= np.linalg.norm(jacobian, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    point = rng.standard_normal(rows)
    expected = jacobian.T @ (point + nnls(jacobian.T, -jacobian.T @ point)[0])
    cosines = jacobian @ jacobian.T
    size = float(np.abs(point).sum())
    for guess in (None, np.ones(rows, bool), rng.random(rows) < 0.5):
        found = nonnegative_within(cosines, cosines @ point, size, EPSILON, guess)
        assert (found >= 0.0).all()
        np.testing.assert_allclose(jacobian.T @ (point + found), expected, atol=1e-6 * size)


@given(seeds, st.integers(2, 24), st.integers(1, 30), st.sampled_from(KINDS))
@example(21, 21, 21, "stationary")
@settings(max_examples=150, deadline=None)
def test_meets_the_optimality_conditions_or_misses_by_what_the_cosines_cannot_tell(
    seed: int, rows: int, columns: int, kind: str
) -> None:
    cosines = cosines_of(drawn_jacobian(kind, seed, rows, columns) + 1e-300)
    point = np.random.default_rng(seed).standard_normal(rows)
    found = nonnegative_within(cosines, cosines @ point, float(np.abs(point).sum()), EPSILON)
    after = cosines @ (point + found)
    size = float(np.abs(point).sum() + found.sum())
    assert (found >= 0.0).all()
    assert np.abs(after[found > 0.0]).max(initial=0.0) <= 1e-13 * size
    # a gradient within 1e-7 of the span of others is taken for one of their combinations; rounding makes a length, too
    squared = max(float((point + found) @ after), 0.0) + rows**2 * EPSILON * size**2
    assert after.min() >= -1e-13 * size - 1e-6 * np.sqrt(squared)


@pytest.mark.parametrize("rounding", [0.0, 1e-16, -1e-16, 3e-16])
@given(seeds)
@settings(max_examples=30, deadline=None)
def test_opposite_gradients_do_not_make_one_another_grow(rounding: float, seed: int) -> None:
    """a, -a and a third, with the cosine of the pair off by a rounding: the steps are those of a alone."""
    a, third = drawn_jacobian("gaussian", seed, 2, 30)
    cosines = cosines_of(np.stack([a, -a, third]))
    cosines[0, 1] = cosines[1, 0] = -1.0 + rounding
    found = nonnegative_within(cosines, cosines[2], 1.0, 4.0 * np.finfo(float).eps)
    assert found.sum() <= 1.0 + 1e-12
    np.testing.assert_allclose(abs(found[0] - found[1]), abs(cosines[2, 0]), atol=1e-14)


def test_with_single_precision_a_nearly_opposite_pair_is_opposite() -> None:
    cosines = np.array([[1.0, -1.0 + 1e-8, 0.3], [-1.0 + 1e-8, 1.0, -0.3], [0.3, -0.3, 1.0]])
    found = nonnegative_within(cosines, cosines[0], 1.0, 4.0 * np.finfo(np.float32).eps)
    np.testing.assert_allclose(found, [0.0, 1.0, 0.0], atol=1e-7)
