"""The min-norm point against cvxpy, exact arithmetic, closed forms and its own certificate."""

from __future__ import annotations

import warnings
from functools import cache

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mtopt import SolverError
from mtopt.combiners import gramian_of
from mtopt.linalg import Precision, normalize_gramian
from mtopt.solvers import Certificate, min_norm
from mtopt.solvers._min_norm import _certify
from tests.solvers.helpers import KINDS, Array, drawn_jacobian, exact_residual, spread_over_decades

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(1, 12)
kinds = st.sampled_from(KINDS)


@cache
def _program(rows: int, columns: int) -> tuple[cp.Problem, cp.Parameter, cp.Variable]:
    jacobian, weights = cp.Parameter((rows, columns)), cp.Variable(rows)
    objective = cp.Minimize(cp.sum_squares(weights @ jacobian))
    return cp.Problem(objective, [weights >= 0, cp.sum(weights) == 1]), jacobian, weights


def _cvxpy(jacobian: Array) -> tuple[Array, bool]:
    """The weights that cvxpy gives, put back on the simplex exactly, and whether it vouches for them."""
    problem, parameter, weights = _program(*jacobian.shape)
    parameter.value = jacobian
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")  # nearly opposite rows are hard for it
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    clipped = np.clip(np.asarray(weights.value), 0.0, None)
    return np.asarray(clipped / clipped.sum()), problem.status == cp.OPTIMAL


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 12])
def test_finds_the_point_that_cvxpy_finds(kind: str, rows: int) -> None:
    vouched = 0
    for seed, columns in enumerate([1, 2, rows, rows + 3, 40, 40, 40, 40]):
        jacobian = drawn_jacobian(kind, seed, rows, columns)
        ours, _ = min_norm(jacobian @ jacobian.T)
        weights, sure = _cvxpy(jacobian)
        point, judged = ours @ jacobian, weights @ jacobian
        size = np.linalg.norm(jacobian, axis=1).max()
        # nothing in the hull is shorter, whoever proposes it
        assert np.linalg.norm(point) ** 2 <= np.linalg.norm(judged) ** 2 + 1e-13 * size**2
        if sure:  # the min-norm point is unique, its weights need not be; points agree to the root of the tolerance
            np.testing.assert_allclose(point, judged, atol=3e-5 * size)
            vouched += 1
    assert vouched >= 4


@given(seeds, counts, st.integers(1, 20), kinds, st.sampled_from([0.0, 2.0, 6.0, 12.0]))
@example(53, 3, 11, "nearly_opposite", 6.0)  # slopes below what SciPy's nnls takes for none
@example(10, 8, 1, "rank_deficient", 12.0)  # opposite pairs of many lengths, some a million million times as long
@example(59, 7, 1, "rank_deficient", 12.0)
@example(2_761_847, 4, 1, "rank_deficient", 12.0)
@settings(max_examples=400, deadline=None)
def test_meets_the_optimality_conditions_in_exact_arithmetic(
    seed: int, rows: int, columns: int, kind: str, decades: float
) -> None:
    jacobian = spread_over_decades(drawn_jacobian(kind, seed, rows, columns), seed, decades)
    gramian = jacobian @ jacobian.T
    if (gramian.diagonal() == 0).any():
        return  # a zero row has its own test
    weights, certificate = min_norm(gramian)
    assert exact_residual(gramian, weights) <= 1e-10
    # the certificate's unit is the direction, the other one's the lengths that were added up
    lengths = np.sqrt(gramian.diagonal())
    added = float(weights @ lengths / lengths.min())
    short = max(float(np.linalg.norm(weights @ jacobian) / lengths.min()), 1e-8 * added)
    assert certificate.residual <= 1e-10 + 1e-14 * added * (1.0 + added) / min(short, 1.0)


@given(seeds, st.sampled_from([1.0, 1.0 - 1e-16, 1.0 - 1e-9, 1.0 - 1e-4]), st.floats(-14, 0))
@settings(max_examples=300, deadline=None)
@example(0, 1.0, -8.0)  # the squared length of the difference drowns in rounding
def test_two_gradients_that_are_almost_the_same(seed: int, cosine: float, exponent: float) -> None:
    norms = np.random.default_rng(seed).permutation([1.0, 1.0 + 10.0**exponent])
    gramian = np.outer(norms, norms) * np.array([[1.0, cosine], [cosine, 1.0]])
    weights, _ = min_norm(gramian)
    # rounding of the products can make the matrix indefinite by an ulp, which the residual may show
    assert exact_residual(gramian, weights) <= 1e-10


@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(-1, 1))
@settings(max_examples=200, deadline=None)
def test_two_gradients_have_a_closed_form(log_first: float, log_second: float, cosine: float) -> None:
    first, second = 10.0**log_first, 10.0**log_second
    cross = cosine * first * second
    gramian = np.array([[first**2, cross], [cross, second**2]])
    weights, certificate = min_norm(gramian)
    # the three cases, each written out
    if cross >= first**2:
        expected = np.array([1.0, 0.0])
    elif cross >= second**2:
        expected = np.array([0.0, 1.0])
    else:
        expected = np.array([second**2 - cross, first**2 - cross]) / (first**2 + second**2 - 2 * cross)
    if abs(cosine) < 0.999999:
        np.testing.assert_allclose(weights, expected, rtol=1e-7, atol=1e-12)
    assert weights @ gramian @ weights <= expected @ gramian @ expected + 1e-12 * min(first, second) ** 2
    assert certificate.method == "closed form"


@given(seeds, st.integers(2, 8), st.integers(1, 6))
@settings(max_examples=200, deadline=None)
def test_float32_gradients_that_depend_on_each_other_are_solved(seed: int, rows: int, rank: int) -> None:
    """K > D and the like: rounding makes the Gramian of float32 rows indefinite by about 1e-7.

    A point that vanishes has a length that products in float64 tell to 3e-8.
    """
    jacobian = drawn_jacobian("rank_deficient", seed, rows, 2 * rank)
    weights, certificate = min_norm(gramian_of(torch.from_numpy(jacobian).float()))
    assert certificate.residual <= 1e-7
    assert exact_residual(jacobian @ jacobian.T, weights) <= 1e-6


@pytest.mark.parametrize("rows", [2, 3, 12])
def test_zero_rows_share_the_weight(rows: int) -> None:
    jacobian = drawn_jacobian("gaussian", 0, rows, 20)
    jacobian[0] = 0.0
    weights, certificate = min_norm(jacobian @ jacobian.T)
    np.testing.assert_array_equal(weights, np.eye(rows)[0])
    assert certificate.residual == 0.0
    jacobian[1] = 0.0
    weights, _ = min_norm(jacobian @ jacobian.T)
    np.testing.assert_array_equal(weights, [0.5, 0.5] + [0.0] * (rows - 2))


@given(seeds, st.integers(2, 10), kinds)
@settings(max_examples=100, deadline=None)
def test_the_order_of_the_gradients_does_not_matter(seed: int, rows: int, kind: str) -> None:
    jacobian = drawn_jacobian(kind, seed, rows, 30)
    order = np.random.default_rng(seed).permutation(rows)
    point = min_norm(jacobian @ jacobian.T)[0] @ jacobian
    permuted = min_norm(jacobian[order] @ jacobian[order].T)[0] @ jacobian[order]
    np.testing.assert_allclose(permuted, point, atol=1e-6 * np.linalg.norm(jacobian, axis=1).max())


@given(seeds, st.integers(1, 10), st.floats(-20, 20))
@settings(max_examples=100, deadline=None)
def test_the_scale_of_the_gradients_does_not_matter(seed: int, rows: int, exponent: float) -> None:
    jacobian = drawn_jacobian("gaussian", seed, rows, 30)
    scaled = 10.0**exponent * jacobian
    np.testing.assert_allclose(
        min_norm(scaled @ scaled.T)[0], min_norm(jacobian @ jacobian.T)[0], rtol=1e-9, atol=1e-12
    )


@given(seeds, st.integers(2, 8), st.sampled_from([0.0, 3.0]))
@settings(max_examples=200, deadline=None)
def test_the_certificate_of_a_wrong_answer_says_how_wrong(seed: int, rows: int, decades: float) -> None:
    jacobian = spread_over_decades(drawn_jacobian("gaussian", seed, rows, 20), seed, decades)
    gramian = jacobian @ jacobian.T
    best, _ = min_norm(gramian)
    weights = np.random.default_rng(seed).dirichlet(np.ones(rows))
    cosines, norms = normalize_gramian(gramian)
    shortest = norms.min()
    inverse, scaled = shortest / norms, weights * norms / shortest
    violation = max(exact_residual(gramian, weights) * float(weights @ norms) / shortest, 0.0)
    # weak duality: the excess of the squared length is at most twice the gap
    excess = (weights @ gramian @ weights - best @ gramian @ best) / shortest**2
    slopes = gramian @ weights
    gap = (weights @ slopes - slopes.min()) / shortest**2
    assert excess <= 2 * gap * (1 + 1e-9)
    hidden = 1e-12 * (1.0 + scaled.sum()) ** 2
    if violation > 1e-6 + hidden:
        with pytest.raises(SolverError, match=r"the min-norm program was not solved: .* is missing by nnls"):
            _certify(cosines, inverse, scaled, Precision(1e-16, 1e-15))
        certificate = _certify(cosines, inverse, scaled, Precision(1e-16, violation))  # evidence that could explain it
        assert certificate.residual >= violation
        assert certificate.gap == pytest.approx(gap, rel=1e-6)


def test_a_certificate_of_nan_does_not_pass() -> None:
    with pytest.raises(SolverError, match="nan"):
        Certificate(float("nan"), None, "nnls").require("the program")


@pytest.mark.parametrize("rows", [2, 3])
def test_a_matrix_that_is_no_gramian_is_refused(rows: int) -> None:
    matrix = np.full((rows, rows), 1.5)
    np.fill_diagonal(matrix, 1.0)
    with pytest.raises(SolverError, match="not positive semi-definite"):
        min_norm(matrix)


def test_takes_tensors_of_any_dtype() -> None:
    gramian = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        weights, _ = min_norm(gramian.to(dtype).requires_grad_())
        assert weights.dtype == np.float64
        np.testing.assert_allclose(weights, [0.2, 0.8], rtol=1e-12)
