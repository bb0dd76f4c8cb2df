"""Weighted sums of gradient rows against matrix arithmetic."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.linalg import Gradients
from tests.combiners.helpers import drawn_jacobian

SHAPES = [(7, 3), (1,), (), (2, 2, 5), (0, 4)]


def drawn_rows(seed: int, count: int, dtypes: list[torch.dtype]) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        [torch.randn(shape, generator=generator).to(t) for shape, t in zip(SHAPES, dtypes, strict=True)]
        for _ in range(count)
    ]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(-20, 20))
@settings(max_examples=60, deadline=None)
def test_equals_matrix_arithmetic(seed: int, count: int, exponent: int) -> None:
    rows = drawn_rows(seed, count, [torch.float32] * len(SHAPES))
    weights = drawn_jacobian(seed, 1, count)[0] * 10.0**exponent
    combined = Gradients(rows).combined(weights)
    for p, found in enumerate(combined):
        stacked = torch.stack([row[p].double() for row in rows])
        truth = torch.tensordot(weights, stacked, dims=1)
        size = torch.tensordot(weights.abs(), stacked.abs(), dims=1)
        assert found.dtype == torch.float32
        assert found.shape == truth.shape
        assert bool(((found.double() - truth).abs() <= 1e-6 * size).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_rows_are_summed_in_float32(dtype: torch.dtype) -> None:
    """Three hundred terms that each vanish beside the sum of those before them, if that sum has 8 or 11 bits."""
    rows = [[torch.ones(4, dtype=dtype)] for _ in range(3000)]
    (found,) = Gradients(rows).combined(torch.full((3000,), 1 / 3000, dtype=torch.float64))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), torch.ones(4, dtype=torch.float64), rtol=1e-3, atol=0)


def test_mixed_dtypes_keep_their_own() -> None:
    dtypes = [torch.float32, torch.bfloat16, torch.float64, torch.float16, torch.float32]
    for order in (dtypes, dtypes[1:] + dtypes[:1]):
        rows = drawn_rows(0, 3, order)
        weights = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64)
        combined = Gradients(rows).combined(weights)
        assert [g.dtype for g in combined] == order
        for p, found in enumerate(combined):
            truth = torch.tensordot(weights, torch.stack([row[p].double() for row in rows]), dims=1)
            torch.testing.assert_close(found.double(), truth, rtol=2e-2, atol=2e-2)


def test_no_row_is_written_to_though_rows_share_memory() -> None:
    """Autograd hands out one tensor for two parameters, (a + b).sum(), and tensors expanded from one number."""
    shared = torch.ones(3)
    expanded = torch.tensor(1.0).expand(3)
    rows = [[shared, shared, expanded], [shared, expanded, expanded]]
    combined = Gradients(rows).combined(torch.tensor([2.0, 3.0]))
    for found in combined:
        torch.testing.assert_close(found, torch.full((3,), 5.0))
    torch.testing.assert_close(shared, torch.ones(3))
    torch.testing.assert_close(expanded, torch.ones(3))
    combined[0].add_(1.0)
    combined[2][0] = 7.0
    torch.testing.assert_close(combined[1], torch.full((3,), 5.0))
    torch.testing.assert_close(combined[2], torch.tensor([7.0, 5.0, 5.0]))


def test_a_single_row_is_copied() -> None:
    row = torch.ones(3)
    (found,) = Gradients([[row]]).combined(torch.ones(1))
    found.zero_()
    torch.testing.assert_close(row, torch.ones(3))


def test_the_jacobian_is_new_memory_and_the_factor_stays_in_what_is_combined() -> None:
    rows = [[torch.full((2,), 8.0)], [torch.full((2,), 16.0)]]
    gradients = Gradients(rows, scale=8.0)
    torch.testing.assert_close(gradients.jacobian(), torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    torch.testing.assert_close(rows[0][0], torch.full((2,), 8.0))
    torch.testing.assert_close(gradients.combined(torch.ones(2))[0], torch.full((2,), 24.0))
