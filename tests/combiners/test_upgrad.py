"""UPGrad and DualProj: identities, the promise that no loss rises, and cvxpy."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners import DualProj, Gradients, PCGrad, UPGrad
from tests.combiners.helpers import agreeing, conflicting_pair, drawn_jacobian

seeds = st.integers(0, 2**32 - 1)


def projection(jacobian: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    direction = cp.Variable(len(vector))
    problem = cp.Problem(cp.Minimize(cp.sum_squares(direction - vector.numpy())), [jacobian.numpy() @ direction >= 0])
    problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-11, tol_gap_rel=1e-11, tol_feas=1e-11)
    return torch.from_numpy(np.asarray(direction.value))


@pytest.mark.parametrize("rows", [2, 3, 5, 12])
def test_projections_are_those_of_cvxpy(rows: int) -> None:
    for seed in range(3):
        jacobian = drawn_jacobian(seed, rows, rows + 2)
        shares = np.random.default_rng(seed).dirichlet(np.ones(rows))
        expected = sum(share * projection(jacobian, row) for share, row in zip(shares, jacobian, strict=True))
        torch.testing.assert_close(UPGrad(preference=shares.tolist())(jacobian), expected, atol=2e-5, rtol=0)
        expected = projection(jacobian, torch.from_numpy(shares) @ jacobian)
        torch.testing.assert_close(DualProj(preference=shares.tolist())(jacobian), expected, atol=2e-5, rtol=0)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_two_conflicting_gradients_give_half_of_pcgrad(seed: int) -> None:
    jacobian = conflicting_pair(seed)
    torch.testing.assert_close(UPGrad()(jacobian), PCGrad()(jacobian) / 2, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("rule", [UPGrad(), DualProj()])
def test_without_a_conflict_it_is_the_mean(rule: UPGrad | DualProj) -> None:
    for rows in (1, 2, 3, 12):
        jacobian = agreeing(rows, rows, 6)
        torch.testing.assert_close(rule(jacobian), jacobian.mean(0))
    shares = [0.2, 0.3, 0.5]
    jacobian = agreeing(0, 3, 6)
    torch.testing.assert_close(type(rule)(preference=shares)(jacobian), torch.tensor(shares).double() @ jacobian)


@given(seeds, st.integers(2, 12), st.sampled_from([1.0, 30.0, 1e6]))
@settings(max_examples=100, deadline=None)
def test_no_loss_rises_however_different_the_lengths(seed: int, rows: int, ratio: float) -> None:
    jacobian = drawn_jacobian(seed, rows, 2 * rows)
    jacobian = jacobian - 0.8 * jacobian.mean(0)
    jacobian[0] *= ratio
    for rule in (UPGrad(), DualProj()):
        direction = rule(jacobian)
        cosines = jacobian @ direction / jacobian.norm(dim=1) / direction.norm()
        assert float(cosines.min()) >= -1e-9
        assert rule.certificate is not None
        assert rule.certificate.residual <= 1e-10
        assert rule.non_conflicting


def test_a_loss_absent_from_the_step_keeps_its_share_to_itself() -> None:
    rows = drawn_jacobian(0, 3, 5)
    shares = [0.2, 0.3, 0.5]
    gradients = Gradients([[rows[0]], [rows[2]]], objectives=[0, 2], total=3)
    for rule in (UPGrad, DualProj):
        outcome = rule(preference=shares).combine(gradients, None)
        assert outcome.weights is not None
        if float(rows[0] @ rows[2]) >= 0:
            torch.testing.assert_close(outcome.weights, torch.tensor([0.2, 0.5], dtype=torch.float64))
        assert bool((outcome.weights >= torch.tensor([0.2, 0.5], dtype=torch.float64) - 1e-15).all())


@pytest.mark.parametrize("rule", [UPGrad(), DualProj()])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_degenerate_gradients_have_an_answer(rule: UPGrad | DualProj, dtype: torch.dtype) -> None:
    row = drawn_jacobian(0, 1, 5, dtype)
    torch.testing.assert_close(rule(torch.cat([row, -row])), torch.zeros(5, dtype=dtype), atol=1e-6, rtol=0)
    torch.testing.assert_close(rule(row.repeat(3, 1)), row[0])
    torch.testing.assert_close(rule(torch.zeros(3, 4, dtype=dtype)), torch.zeros(4, dtype=dtype))
    with_zero = torch.cat([row, torch.zeros_like(row)])
    torch.testing.assert_close(rule(with_zero), row[0] / 2)
    wide = drawn_jacobian(1, 6, 2, dtype)  # K > D: the cone may be a point
    assert bool(rule(wide).isfinite().all())


def test_a_conflicting_mean_is_kept_by_dualproj_and_not_by_upgrad() -> None:
    """Gradients conflict with one another, and not with their mean."""
    jacobian = torch.tensor([[1.0, 0.2], [-0.1, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(DualProj()(jacobian), jacobian.mean(0))
    assert not torch.allclose(UPGrad()(torch.tensor([[1.0, 0.0], [-0.9, 0.1]])), torch.tensor([0.05, 0.05]))


def test_the_preference_is_checked() -> None:
    with pytest.raises(ValueError, match="preference must be non-negative"):
        UPGrad(preference=[2.0, -1.0])
    with pytest.raises(ValueError, match="preference has 2 entries for 3 objectives"):
        DualProj(preference=[0.5, 0.5])(torch.eye(3))
    assert repr(DualProj(preference=[0.5, 0.5])) == "DualProj(preference=[0.5, 0.5])"
