"""Linear scalarization against the gradient of the weighted sum."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners import Gradients, Linear, create_combiner
from tests.combiners.helpers import drawn_jacobian


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_is_the_weighted_sum_of_the_rows(seed: int, rows: int) -> None:
    jacobian = drawn_jacobian(seed, rows, 9)
    preference = drawn_jacobian(seed, 1, rows)[0].abs()
    preference = preference / preference.sum()
    torch.testing.assert_close(Linear()(jacobian), jacobian.mean(0))
    torch.testing.assert_close(Linear(reduction="sum")(jacobian), jacobian.sum(0))
    torch.testing.assert_close(Linear(preference=preference)(jacobian), preference @ jacobian)
    torch.testing.assert_close(Linear(preference=preference, reduction="sum")(jacobian), rows * preference @ jacobian)


def test_the_sum_with_an_equal_preference_is_the_plain_sum() -> None:
    jacobian = drawn_jacobian(0, 4, 9)
    torch.testing.assert_close(Linear(preference=[0.25] * 4, reduction="sum")(jacobian), jacobian.sum(0))


def test_the_loss_values_do_not_matter_but_their_number_does() -> None:
    jacobian = drawn_jacobian(0, 2, 3)
    torch.testing.assert_close(Linear()(jacobian, torch.tensor([5.0, -7.0])), jacobian.mean(0))
    with pytest.raises(ValueError, match=r"losses must have shape \(2,\), one for each row, found \(3,\)"):
        Linear()(jacobian, torch.ones(3))


def test_an_absent_loss_counts_as_zero() -> None:
    jacobian = drawn_jacobian(0, 3, 5)
    rule = Linear(preference=[0.2, 0.3, 0.5])
    outcome = rule.combine(Gradients([[jacobian[0]], [jacobian[2]]], objectives=[0, 2], total=3), torch.ones(2))
    torch.testing.assert_close(outcome.weights, torch.tensor([0.2, 0.5], dtype=torch.float64))
    outcome = Linear().combine(Gradients([[jacobian[0]], [jacobian[2]]], objectives=[0, 2], total=3), torch.ones(2))
    torch.testing.assert_close(outcome.weights, torch.full((2,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("preference", [[0.5, 0.6], [1.5, -0.5], [[0.5, 0.5]], [], [float("nan"), 1.0], [0.0, 0.0]])
def test_a_preference_that_is_none_is_refused(preference: list[float]) -> None:
    with pytest.raises(ValueError, match="preference must be non-negative and sum to one"):
        Linear(preference=preference)


def test_a_preference_for_another_number_of_objectives_is_refused() -> None:
    with pytest.raises(ValueError, match="preference has 2 entries for 3 objectives"):
        Linear(preference=[0.5, 0.5])(drawn_jacobian(0, 3, 4))


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', found 'max'"):
        create_combiner("linear", reduction="max")
