"""ConicGrad against its program by cvxpy, MGDA inside the cone, and the angle on its boundary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtopt.combiners import MGDA, ConicGrad
from mtopt.solvers import best_in_cone
from tests.combiners.helpers import agreeing, drawn_jacobian


def by_cvxpy(jacobian: torch.Tensor, cosine: float) -> float:
    """The largest worst rate; the program is convex with ``||d|| <= ||g_0||``, where that is positive."""
    cvxpy = pytest.importorskip("cvxpy")
    rows = jacobian.numpy()
    mean = rows.mean(0)
    reach = np.linalg.norm(mean)
    d = cvxpy.Variable(rows.shape[1])
    inside = [cvxpy.norm(d) <= reach, d @ mean >= cosine * reach * cvxpy.norm(d)]
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.min(rows @ d)), inside)
    problem.solve(solver="CLARABEL", tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9)
    return float(problem.value)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("cosine", [0.6, 0.95])
def test_the_worst_rate_is_the_programs(seed: int, cosine: float) -> None:
    jacobian = drawn_jacobian(seed, 2 + seed % 5, 6) + 0.4
    found, mean = ConicGrad(c=cosine)(jacobian), jacobian.mean(0)
    assert float(found.norm()) == pytest.approx(float(mean.norm()), rel=1e-9)
    assert float(found @ mean / mean.norm() / found.norm()) >= cosine - 1e-9
    expected = by_cvxpy(jacobian, cosine)
    if expected > 1e-6:
        assert float((jacobian @ found).min()) == pytest.approx(expected, rel=1e-6)


def test_both_cases_are_met_and_certified() -> None:
    methods = set()
    for seed in range(12):
        jacobian = drawn_jacobian(seed, 3, 6) + 0.4
        _, certificate = best_in_cone(jacobian @ jacobian.T, 0.95)
        methods.add(certificate.method)
        assert certificate.residual < 1e-10
    assert {"boundary", "nnls"} <= methods


def test_in_a_wide_cone_it_points_along_mgda() -> None:
    jacobian = agreeing(0, 3, 8)
    found, shortest = ConicGrad(c=0.01)(jacobian), MGDA()(jacobian)
    torch.testing.assert_close(found / found.norm(), shortest / shortest.norm())


def test_in_a_narrow_cone_it_is_the_mean() -> None:
    jacobian = drawn_jacobian(3, 3, 8)
    torch.testing.assert_close(ConicGrad(c=1.0 - 1e-12)(jacobian), jacobian.mean(0), rtol=0.0, atol=1e-4)


def test_pareto_stationary_gradients_give_the_mean() -> None:
    jacobian = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(ConicGrad()(jacobian), jacobian.mean(0))


def test_c_is_checked() -> None:
    with pytest.raises(ValueError, match=r"c must be in \(0, 1\), found 0"):
        ConicGrad(c=0.0)
