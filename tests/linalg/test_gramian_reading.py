"""What every solver does first: read the Gramian, scale it, take its root; and last: answer in its dtype."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt import NonFiniteError
from mtopt.linalg import make_tensor_like, normalize_gramian, read_gramian, take_square_root
from tests.solvers.helpers import KINDS, drawn_jacobian, spread_over_decades

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 10), st.sampled_from(KINDS), st.sampled_from([0.0, 12.0, 40.0]))
@settings(max_examples=100, deadline=None)
def test_unit_rows_are_the_cosines_whatever_the_norms(seed: int, rows: int, kind: str, decades: float) -> None:
    jacobian = drawn_jacobian(kind, seed, rows, 15) + 1e-3
    cosines, _ = normalize_gramian(jacobian @ jacobian.T)
    scaled = spread_over_decades(jacobian, seed, decades)
    found, norms = normalize_gramian(scaled @ scaled.T)
    np.testing.assert_allclose(found, cosines, atol=1e-13)
    np.testing.assert_allclose(norms, np.linalg.norm(scaled, axis=1), rtol=1e-13)


def test_a_zero_row_stays_zero() -> None:
    cosines, norms = normalize_gramian(np.diag([4.0, 0.0]))
    np.testing.assert_array_equal(cosines, np.diag([1.0, 0.0]))
    np.testing.assert_array_equal(norms, [2.0, 0.0])


@given(seeds, st.integers(1, 10), st.sampled_from(KINDS))
@settings(max_examples=100, deadline=None)
def test_the_square_root_gives_the_matrix_back_at_any_rank(seed: int, rows: int, kind: str) -> None:
    jacobian = drawn_jacobian(kind, seed, rows, 5)
    matrix = jacobian @ jacobian.T
    root = take_square_root(matrix)
    np.testing.assert_allclose(root.T @ root, matrix, atol=1e-13 * max(1.0, np.abs(matrix).max()))


def test_the_square_root_of_an_indefinite_matrix_is_that_of_the_nearest_semidefinite_one() -> None:
    root = take_square_root(np.diag([1.0, -1e-7]))
    np.testing.assert_allclose(root.T @ root, np.diag([1.0, 0.0]), atol=1e-15)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 0), (2, 2, 2)])
def test_a_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"gramian must have shape \(K, K\) with K >= 1, found"):
        read_gramian(np.ones(shape))


def test_rows_with_nan_or_infinity_are_named() -> None:
    matrix = np.eye(4)
    matrix[1, 1], matrix[3, 3] = np.nan, np.inf
    with pytest.raises(NonFiniteError, match=r"rows \[1, 3\]"):
        read_gramian(matrix)


def test_a_negative_diagonal_is_refused() -> None:
    with pytest.raises(ValueError, match="negative diagonal"):
        read_gramian(np.diag([1.0, -1.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_answers_in_the_dtype_of_the_question(dtype: torch.dtype) -> None:
    assert make_tensor_like(np.ones(2), torch.eye(2, dtype=dtype)).dtype == dtype
    assert make_tensor_like(np.ones(2), np.eye(2)).dtype == torch.float64
