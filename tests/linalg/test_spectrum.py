"""Pseudo-inverses and singular values from Gramians, against closed forms and the gradients themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.linalg import DOUBLE_PRECISION, apply_pseudo_inverse, find_singular_values, normalize_gramian
from tests.solvers.helpers import KINDS, drawn_jacobian

seeds = st.integers(0, 2**32 - 1)
EXACT = 1e-13


@given(seeds, st.integers(1, 12), st.integers(1, 12), st.sampled_from(["gaussian", "rank_deficient", "duplicated"]))
@settings(max_examples=150, deadline=None)
def test_pseudo_solve_is_the_shortest_least_squares_solution(seed: int, rows: int, columns: int, kind: str) -> None:
    jacobian = drawn_jacobian(kind, seed, rows, columns)
    cosines, norms = normalize_gramian(jacobian @ jacobian.T)
    target = np.random.default_rng(seed).standard_normal(rows)
    units = jacobian / norms[:, None]
    # C+ = (U U')+ = (U+)' U+, from the unit gradients themselves
    inverse = np.linalg.pinv(units, rcond=1e-7)
    expected = inverse.T @ (inverse @ target)
    found, _ = apply_pseudo_inverse(cosines, target, DOUBLE_PRECISION)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_a_target_outside_the_range_gives_zero() -> None:
    found, solvable = apply_pseudo_inverse(np.array([[1.0, -1.0], [-1.0, 1.0]]), np.ones(2), DOUBLE_PRECISION)
    np.testing.assert_array_equal(found, np.zeros(2))
    assert not solvable


@given(st.floats(-12, 12), st.floats(-0.99, 0.99))
@settings(max_examples=100, deadline=None)
def test_two_rows_of_any_ratio_have_exact_singular_values(exponent: float, cosine: float) -> None:
    first, second = 1.0, 10.0**exponent
    cross = cosine * first * second
    gramian = np.array([[first**2, cross], [cross, second**2]])
    values, vectors = find_singular_values(gramian, *normalize_gramian(gramian), EXACT)
    # sigma_1 sigma_2 is the area, sigma_1² + sigma_2² the sum of squares
    largest = math.sqrt(0.5 * (first**2 + second**2 + math.hypot(first**2 - second**2, 2.0 * cross)))
    area = first * second * math.sqrt((1.0 - cosine) * (1.0 + cosine))
    np.testing.assert_allclose(values, [largest, area / largest], rtol=1e-12)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(2), atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("decades", [0.0, 3.0, 8.0])
def test_rebuilds_the_gramian_row_by_row(kind: str, decades: float) -> None:
    """To the accuracy of each entry's own rows, not of the largest."""
    for seed in range(5):
        jacobian = drawn_jacobian(kind, seed, 5, 4) * 10.0 ** np.linspace(-decades, 0.0, 5)[:, None]
        gramian = jacobian @ jacobian.T
        cosines, norms = normalize_gramian(gramian)
        values, vectors = find_singular_values(gramian, cosines, norms, 5 * EXACT)
        assert len(values) <= 4
        assert (np.diff(values) <= 0).all()
        rebuilt = (vectors * values**2) @ vectors.T
        np.testing.assert_allclose((rebuilt - gramian) / norms / norms[:, None], 0.0, atol=1e-11)
