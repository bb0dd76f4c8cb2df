"""RACO against the program by cvxpy and the clip of its solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtopt.combiners import RACO, CAGrad
from tests.combiners.helpers import drawn_jacobian


def paper(jacobian: torch.Tensor, shares: list[float], c: float) -> np.ndarray:
    cvxpy = pytest.importorskip("cvxpy")
    rows, w = jacobian.numpy(), np.array(shares)
    reference = w @ rows
    reach = c * np.linalg.norm(reference)
    p = cvxpy.Variable(len(w), nonneg=True)
    dual = cvxpy.Minimize(p @ (rows @ reference) + reach * cvxpy.norm(rows.T @ p))
    cvxpy.Problem(dual, [cvxpy.sum(p) == 1]).solve(solver="CLARABEL", tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    added = np.minimum(p.value, w) @ rows
    return np.asarray(reference + reach / np.linalg.norm(added) * added)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.2, 0.8], [0.5, 0.3, 0.2]])
def test_it_is_the_papers(seed: int, shares: list[float]) -> None:
    jacobian = drawn_jacobian(seed, len(shares), 6)
    found = RACO(c=0.5, preference=shares)(jacobian)
    np.testing.assert_allclose(found.numpy(), paper(jacobian, shares, 0.5), rtol=1e-5, atol=1e-5)


def test_the_step_stays_on_cagrads_ball() -> None:
    for seed in range(10):
        jacobian = drawn_jacobian(seed, 4, 6)
        weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
        reference = weights @ jacobian
        found = RACO(c=0.4, preference=weights.tolist())(jacobian)
        assert float((found - reference).norm()) == pytest.approx(0.4 * float(reference.norm()))


def test_what_is_not_clipped_is_cagrad() -> None:
    # orthogonal gradients of one length: p = w = 1/2 each
    jacobian = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(RACO(c=0.3)(jacobian), CAGrad(c=0.3)(jacobian))


def test_a_loss_without_weight_is_not_brought_back() -> None:
    jacobian = drawn_jacobian(2, 2, 5)
    jacobian[1] = -0.3 * jacobian[0] + 0.1 * jacobian[1]
    found = RACO(c=0.5, preference=[1.0, 0.0])(jacobian)
    along = found @ jacobian[0] / jacobian[0].norm() ** 2
    torch.testing.assert_close(found, along * jacobian[0])


def test_no_ball_is_the_weighted_gradient() -> None:
    jacobian = drawn_jacobian(0, 3, 4)
    expected = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64) @ jacobian
    torch.testing.assert_close(RACO(c=0.0, preference=[0.2, 0.3, 0.5])(jacobian), expected)


def test_c_is_checked() -> None:
    with pytest.raises(ValueError, match=r"c must be in \[0, 1\), found 1"):
        RACO(c=1.0)
