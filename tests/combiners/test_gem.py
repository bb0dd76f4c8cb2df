"""GEM against cvxpy and its promises."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners import Gradients
from mtopt.combiners.gem import GEM
from tests.combiners.helpers import agreeing, conflicting_pair, drawn_jacobian

seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("rows", [2, 3, 6, 12])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_changes_the_gradient_as_little_as_cvxpy_can(rows: int, margin: float) -> None:
    for seed in range(3):
        jacobian = drawn_jacobian(seed, rows, rows + 3)
        current = rows - 1
        memories = np.delete(jacobian.numpy(), current, axis=0)
        push = cp.Variable(rows - 1)
        direction = jacobian[current].numpy() + push @ memories
        problem = cp.Problem(cp.Minimize(cp.sum_squares(direction)), [push >= margin])
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
        conflict = bool((memories @ jacobian[current].numpy() < 0).any())
        expected = torch.from_numpy(np.asarray(direction.value)) if conflict else jacobian[current]
        found = GEM(current=current, margin=margin)(jacobian)
        torch.testing.assert_close(found, expected, atol=3e-5, rtol=0)


@given(seeds, st.integers(2, 12), st.floats(-6, 6))
@settings(max_examples=60, deadline=None)
def test_no_memory_is_forgotten_and_their_scale_does_not_matter(seed: int, rows: int, exponent: float) -> None:
    jacobian = drawn_jacobian(seed, rows, 2 * rows)
    rule = GEM()
    direction = rule(jacobian)
    cosines = jacobian @ direction / jacobian.norm(dim=1) / direction.norm()
    assert float(cosines.min()) >= -1e-9
    assert float(direction.norm()) <= float(jacobian[0].norm()) * (1 + 1e-12)
    scaled = jacobian.clone()
    scaled[1] *= 10.0**exponent
    torch.testing.assert_close(rule(scaled), direction, rtol=1e-6, atol=1e-8)
    assert rule.scale_invariant
    assert not GEM(margin=0.5).scale_invariant


def test_one_memory_has_a_closed_form() -> None:
    current, memory = conflicting_pair(0)
    expected = current - (current @ memory) / (memory @ memory) * memory
    torch.testing.assert_close(GEM()(torch.stack([current, memory])), expected)
    torch.testing.assert_close(GEM(current=1)(torch.stack([memory, current])), expected)


def test_without_a_conflict_the_memories_have_no_say() -> None:
    jacobian = agreeing(0, 4, 6)
    for margin in (0.0, 0.5):
        torch.testing.assert_close(GEM(margin=margin)(jacobian), jacobian[0])


def test_absent_losses() -> None:
    current, memory = conflicting_pair(0)
    alone = GEM().combine(Gradients([[current]], objectives=[0], total=2), None)
    assert alone.weights is not None
    assert alone.weights.tolist() == [1.0]
    without = GEM().combine(Gradients([[memory]], objectives=[1], total=2), None)
    assert without.weights is not None
    assert without.weights.tolist() == [0.0]


def test_degenerate_gradients_have_an_answer() -> None:
    row = drawn_jacobian(0, 1, 5)
    torch.testing.assert_close(GEM()(torch.cat([row, -row])), torch.zeros(5).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(GEM()(torch.cat([row, torch.zeros_like(row)])), row[0])
    torch.testing.assert_close(GEM()(torch.cat([row, -row, -2 * row])), torch.zeros(5).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(GEM()(row), row[0])
    torch.testing.assert_close(GEM()(torch.zeros(3, 4)), torch.zeros(4))


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="current must be a whole number of at least 0"):
        GEM(current=-1)
    with pytest.raises(ValueError, match="margin must be finite and non-negative"):
        GEM(margin=-0.5)
    with pytest.raises(ValueError, match="current is 2, but there are only 2 objectives"):
        GEM(current=2)(torch.eye(2))
    assert repr(GEM(current=1, margin=0.5)) == "GEM(current=1, margin=0.5)"
