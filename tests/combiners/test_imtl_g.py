"""IMTL-G against the paper's system of equations and its defining property."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners import NGDiff
from mtopt.combiners.imtl_g import IMTLG
from tests.combiners.helpers import conflicting_pair, drawn_jacobian

seeds = st.integers(0, 2**32 - 1)


def paper(jacobian: torch.Tensor) -> torch.Tensor:
    """``a_{2..} = g_1 U' (D U')^{-1}``, ``a_1 = 1 - sum``: D and U hold the differences to g_1 and to its unit."""
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    differences, unit_differences = jacobian[0] - jacobian[1:], units[0] - units[1:]
    others = jacobian[0] @ unit_differences.T @ torch.linalg.inv(differences @ unit_differences.T)
    return torch.cat([1 - others.sum()[None], others])


@given(seeds, st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_gives_the_weights_of_the_paper(seed: int, rows: int) -> None:
    jacobian = drawn_jacobian(seed, rows, 30) * torch.logspace(0, 1, rows, dtype=torch.float64)[:, None]
    weights = IMTLG().weights(jacobian @ jacobian.T)
    torch.testing.assert_close(weights, paper(jacobian), rtol=1e-6, atol=1e-8)
    assert float(weights.sum()) == pytest.approx(1.0)
    projections = jacobian @ IMTLG()(jacobian) / jacobian.norm(dim=1)
    torch.testing.assert_close(projections, projections[:1].expand(rows), rtol=1e-7, atol=1e-8)


def test_two_gradients_give_the_bisector() -> None:
    jacobian = conflicting_pair(1)
    direction, bisector = IMTLG()(jacobian), NGDiff()(jacobian)
    torch.testing.assert_close(direction / direction.norm(), bisector / bisector.norm())


def test_uphill_weights_are_the_papers_unless_reversed() -> None:
    """A short gradient between two long ones: equal projections take it with a negative weight."""
    jacobian = torch.tensor([[10.0, 10.0, 0.0], [10.0, -10.0, 0.0], [0.1, 0.0, 0.01]], dtype=torch.float64)
    kept, reversed_ = IMTLG()(jacobian), IMTLG(uphill="reverse")(jacobian)
    torch.testing.assert_close(IMTLG().weights(jacobian @ jacobian.T), paper(jacobian), rtol=1e-6, atol=1e-8)
    assert bool((jacobian @ kept < 0).all())
    torch.testing.assert_close(reversed_, -kept)
    agreeing = drawn_jacobian(0, 2, 5)
    torch.testing.assert_close(IMTLG(uphill="reverse")(agreeing), IMTLG()(agreeing))


@given(seeds, st.floats(-6, 6))
@settings(max_examples=30, deadline=None)
def test_the_scale_of_one_loss_changes_the_length_alone_when_uphill_is_reversed(seed: int, exponent: float) -> None:
    jacobian = drawn_jacobian(seed, 4, 12)
    scaled = jacobian.clone()
    scaled[2] *= 10.0**exponent
    first, second = IMTLG(uphill="reverse")(jacobian), IMTLG(uphill="reverse")(scaled)
    torch.testing.assert_close(first / first.norm(), second / second.norm(), rtol=1e-5, atol=1e-6)
    assert IMTLG(uphill="reverse").scale_invariant
    assert not IMTLG().scale_invariant


def test_degenerate_gradients_have_an_answer() -> None:
    row = drawn_jacobian(0, 1, 5)
    torch.testing.assert_close(IMTLG()(row), row[0])
    torch.testing.assert_close(IMTLG()(torch.eye(4)), torch.full((4,), 0.25))
    torch.testing.assert_close(IMTLG()(torch.cat([row, -2 * row])), torch.zeros(5).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(IMTLG()(row.repeat(3, 1)), row[0])
    torch.testing.assert_close(IMTLG()(torch.zeros(3, 4)), torch.zeros(4))
    with_zero = torch.cat([drawn_jacobian(1, 3, 5), torch.zeros(1, 5).double()])
    torch.testing.assert_close(IMTLG()(with_zero), IMTLG()(with_zero[:3]))
    # three gradients at 120 degrees, and no combination that projects equally and is not zero
    angles = torch.arange(3) * (2 * torch.pi / 3)
    star = torch.stack([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(IMTLG()(star), torch.zeros(2), atol=1e-5, rtol=0)


@given(seeds, st.integers(3, 8), st.sampled_from([torch.float64, torch.float32]))
@settings(max_examples=30, deadline=None)
def test_more_gradients_than_dimensions_project_equally_at_zero_alone(seed: int, rows: int, dtype: torch.dtype) -> None:
    """The eigenvalues that should vanish do not quite, and must not be inverted."""
    jacobian = drawn_jacobian(seed, rows, 2).to(dtype)
    assert float(IMTLG()(jacobian).double().norm()) <= 1e-6 * float(jacobian.double().norm())


@given(seeds, st.floats(-12, 0), st.permutations(range(3)))
@settings(max_examples=50, deadline=None)
def test_what_rounding_leaves_of_a_zero_does_not_count_for_a_short_gradient(
    seed: int, exponent: float, order: list[int]
) -> None:
    """The third unit gradient has the same product with ``u_1 + u_2`` as these two, and its weight is zero."""
    turned = torch.linalg.qr(drawn_jacobian(seed, 3, 3).double())[0]
    units = torch.tensor([[1, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5**0.5]], dtype=torch.float64) @ turned
    jacobian = units * torch.tensor([[1.0], [1.0], [10.0**exponent]], dtype=torch.float64)
    found = IMTLG()(jacobian[order])
    torch.testing.assert_close(found, (units[0] + units[1]) / 2, rtol=0, atol=1e-12)


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="uphill must be 'keep' or 'reverse'"):
        IMTLG(uphill="no")  # type: ignore[arg-type]
    assert repr(IMTLG(uphill="reverse")) == "IMTLG(uphill='reverse')"
