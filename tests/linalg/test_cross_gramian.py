"""Inner products of the gradients of two batches."""

import pytest
import torch

from mtopt.linalg import cross_gramian_of


@pytest.mark.parametrize("scales", [(1.0, 1.0), (1e-25, 1e-25), (1e20, 1e-20), (1e25, 1e10)])
def test_cross_gramian_in_float32_at_length(scales):
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(2, 300_000, generator=generator) * s for s in scales)
    expected = first.double() @ second.double().T
    lengths = first.double().norm(dim=1)[:, None] * second.double().norm(dim=1)
    assert bool(((cross_gramian_of(first, second) - expected).abs() <= 1e-6 * lengths).all())


def test_cross_gramian_of_equal_draws_is_the_gramian_and_its_rows_are_the_first_draws():
    first, second = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 4.0], [5.0, 6.0]])
    assert cross_gramian_of(first, second).tolist() == [[3.0, 5.0], [8.0, 12.0]]
    assert cross_gramian_of(first, first).tolist() == [[1.0, 0.0], [0.0, 4.0]]
    assert cross_gramian_of(first.bfloat16(), second.bfloat16()).dtype == torch.float64
    with pytest.raises(ValueError, match="one shape"):
        cross_gramian_of(first, second[:1])
