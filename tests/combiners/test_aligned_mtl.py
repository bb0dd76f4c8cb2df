"""Aligned-MTL against the singular value decomposition of the gradients and its defining property."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners.aligned_mtl import AlignedMTL
from tests.combiners.helpers import drawn_jacobian

seeds = st.integers(0, 2**32 - 1)
Mode = Literal["min", "median", "rmse"]


def decomposed(jacobian: torch.Tensor, mode: Mode = "min", importances: torch.Tensor | None = None) -> torch.Tensor:
    """``sum_k p_k b_k`` for the rows of ``B J = sigma V W'``, from the singular value decomposition of J itself."""
    left, values, right = torch.linalg.svd(jacobian.double(), full_matrices=False)
    kept = values > 1e-6 * values[0]
    left, values, right = left[:, kept], values[kept], right[kept]
    common = {"min": values[-1], "median": values.square().median().sqrt(), "rmse": values.square().mean().sqrt()}
    weights = torch.ones(len(jacobian), dtype=torch.float64) if importances is None else importances
    return weights @ (common[mode] * left @ right)


@given(seeds, st.integers(1, 8), st.integers(1, 20), st.sampled_from(["min", "median", "rmse"]))
@settings(max_examples=80, deadline=None)
def test_combines_the_aligned_components(seed: int, rows: int, columns: int, mode: Mode) -> None:
    jacobian = drawn_jacobian(seed, rows, columns)
    found = AlignedMTL(scale_mode=mode)(jacobian)
    torch.testing.assert_close(found, decomposed(jacobian, mode), rtol=1e-5, atol=1e-6 * float(jacobian.norm()))


def test_a_preference_weighs_the_aligned_rows() -> None:
    jacobian = drawn_jacobian(0, 3, 7)
    preference = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    rule = AlignedMTL(preference=preference.tolist())
    torch.testing.assert_close(rule(jacobian), decomposed(jacobian, importances=preference))
    equal = AlignedMTL(preference=[1 / 3] * 3)(jacobian)
    torch.testing.assert_close(equal, AlignedMTL()(jacobian) / 3)


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6, 1e9])
def test_two_gradients_of_any_ratio_have_a_closed_form(ratio: float) -> None:
    """The polar factor of a 2 x 2 matrix M with positive determinant is ``(M + cof M) / tr``, up to its length."""
    jacobian = torch.tensor([[1.0, 0.5], [-0.3 * ratio, 1.0 * ratio]], dtype=torch.float64)
    (a, b), (c, d) = jacobian.tolist()
    polar = torch.tensor([[a + d, b - c], [c - b, a + d]], dtype=torch.float64)
    polar /= ((a + d) ** 2 + (b - c) ** 2) ** 0.5
    largest = ((a * a + b * b + c * c + d * d + 2 * (a * d - b * c)) ** 0.5) / 2
    largest += ((a * a + b * b + c * c + d * d - 2 * (a * d - b * c)) ** 0.5) / 2
    smallest = (a * d - b * c) / largest
    torch.testing.assert_close(AlignedMTL()(jacobian), smallest * polar.sum(0), rtol=1e-9, atol=0)


def test_equal_orthogonal_gradients_are_summed() -> None:
    torch.testing.assert_close(AlignedMTL()(2 * torch.eye(3)), torch.full((3,), 2.0))


def test_degenerate_gradients_have_an_answer() -> None:
    row = drawn_jacobian(0, 1, 5)
    torch.testing.assert_close(AlignedMTL()(row), row[0])
    torch.testing.assert_close(AlignedMTL()(torch.zeros(3, 4)), torch.zeros(4))
    torch.testing.assert_close(AlignedMTL()(torch.cat([row, -row])), torch.zeros(5).double(), atol=1e-12, rtol=0)
    parallel = torch.cat([row, 2 * row])  # one component of length sqrt(5) ||g||, shared out by (1, 2) / sqrt(5)
    torch.testing.assert_close(AlignedMTL()(parallel), 3 * row[0])
    with_zero = torch.cat([drawn_jacobian(1, 3, 5), torch.zeros(1, 5).double()])
    torch.testing.assert_close(AlignedMTL()(with_zero), AlignedMTL()(with_zero[:3]))


@given(seeds, st.integers(3, 8))
@settings(max_examples=40, deadline=None)
def test_float32_gradients_that_depend_on_each_other_keep_their_length(seed: int, rows: int) -> None:
    """K > D: the eigenvalues that should vanish come out at 1e-8, and must not set the common length."""
    jacobian = drawn_jacobian(seed, rows, 2, torch.float32)
    expected = decomposed(jacobian)
    torch.testing.assert_close(AlignedMTL()(jacobian).double(), expected, rtol=1e-3, atol=1e-3 * float(jacobian.norm()))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="scale_mode must be 'min', 'median' or 'rmse', found 'max'"):
        AlignedMTL(scale_mode="max")  # type: ignore[arg-type]
    assert repr(AlignedMTL(scale_mode="rmse")) == "AlignedMTL(scale_mode='rmse')"


@given(seeds, st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_opposite_gradients_of_any_ratio_are_one_component(seed: int, pairs: int) -> None:
    """``a q`` and ``-b q``: a component of length ``hypot(a, b)`` along q, with the share ``(a - b) / hypot(a, b)``."""
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(pairs, pairs, generator=generator, dtype=torch.float64)).Q
    one, other = 2.0 ** torch.randint(0, 40, (2, pairs), generator=generator).double()
    found = AlignedMTL()(torch.cat([one[:, None] * rotation, -other[:, None] * rotation]))
    lengths = torch.hypot(one, other)
    expected = float(lengths.min()) * ((one - other) / lengths) @ rotation
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(lengths.min()))
