"""PMGDA: both programs by cvxpy in directions, not in weights, what they promise, and the front it reaches."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt import SolverError
from mtopt.combiners import MGDA, Linear
from mtopt.combiners.pmgda import PMGDA
from mtopt.solvers import Certificate, _toward_ray
from tests.combiners.descents import (
    PREFERENCES,
    angle_to_ray,
    descend,
    distance_to_front,
    drawn_losses,
    drawn_preference,
    starts,
)
from tests.combiners.helpers import drawn_jacobian


def off_ray(losses: torch.Tensor, preference: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """h and its derivative by the losses, the latter by autograd."""
    values = losses.clone().requires_grad_()
    ray = torch.tensor(preference, dtype=torch.float64)
    ray = ray / ray.norm()
    distance = (values - (values @ ray) * ray).norm()
    return distance.detach(), torch.autograd.grad(distance, values)[0]


def near_ray(seed: int, preference: list[float]) -> torch.Tensor:
    return torch.tensor(preference, dtype=torch.float64) + 2e-3 * drawn_losses(seed, len(preference))


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_the_prediction_is_that_of_cvxpy(rows: int) -> None:
    for seed in range(5):
        jacobian, preference = drawn_jacobian(seed, rows, 6), drawn_preference(seed, rows)
        losses = near_ray(seed, preference)
        distance, normal = off_ray(losses, preference)
        assert distance < 0.01
        rows_of = jacobian.numpy()
        step, pace = cp.Variable(6), cp.Variable()
        constraints = [rows_of @ step <= pace, (normal.numpy() @ rows_of) @ step == 0]
        cp.Problem(cp.Minimize(pace + 0.5 * cp.sum_squares(step)), constraints).solve(cp.CLARABEL)
        direction = PMGDA(preference=preference)(jacobian, losses)
        torch.testing.assert_close(direction, -torch.from_numpy(step.value), rtol=0, atol=2e-5)
        torch.testing.assert_close(PMGDA(preference=preference, prediction="mgda")(jacobian, losses), MGDA()(jacobian))


@pytest.mark.parametrize("preference", [[0.98, 0.02], [0.5, 0.5], [0.3, 0.7]])
def test_of_two_losses_the_smaller_share_sets_the_pace_of_the_prediction(preference: list[float]) -> None:
    """Both fall in the ray's ratio, so d is min(u) times the gradient of ``l . u`` without its part along q."""
    ray = torch.tensor(preference, dtype=torch.float64)
    ray = ray / ray.norm()
    for seed in range(5):
        jacobian, losses = drawn_jacobian(seed, 2, 6), near_ray(seed, preference)
        distance, normal = off_ray(losses, preference)
        assert 0 < distance < 0.01
        away = normal @ jacobian / (normal @ jacobian).norm()
        progress = ray @ jacobian
        progress = progress - (progress @ away) * away
        direction = PMGDA(preference=preference)(jacobian, losses)
        torch.testing.assert_close(direction, ray.min() * progress, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rows", [2, 3, 5])
@pytest.mark.parametrize("sigma", [0.0, 0.5, 0.95, 1.0])
def test_the_correction_is_that_of_cvxpy(rows: int, sigma: float) -> None:
    for seed in range(2):
        jacobian, preference = drawn_jacobian(seed, rows, 6), drawn_preference(seed, rows)
        losses = drawn_losses(seed, rows)
        _, normal = off_ray(losses, preference)
        gradient = normal @ jacobian
        unit = torch.cat([jacobian / jacobian.norm(dim=1, keepdim=True), gradient[None] / gradient.norm()]).numpy()
        shares = cp.Variable(rows + 1, nonneg=True)
        direction = unit.T @ shares
        slowest = cp.min(jacobian.numpy() @ direction)
        constraints = [cp.sum(shares) == 1, gradient.numpy() @ direction >= sigma * float(gradient.norm())]
        cp.Problem(cp.Maximize(slowest), constraints).solve(cp.CLARABEL)
        found = PMGDA(preference=preference, sigma=sigma)(jacobian, losses)
        assert float((jacobian @ found).min()) == pytest.approx(float(slowest.value), abs=1e-6)
        assert float(gradient @ found) >= (sigma - 1e-9) * float(gradient.norm())
        assert sigma - 1e-9 <= float(found.norm()) <= 1.0 + 1e-9


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.integers(1, 12), st.floats(0, 12), st.floats(-20, 20))
@settings(max_examples=60, deadline=None)
def test_promises(seed: int, rows: int, columns: int, decades: float, size: float) -> None:
    """Predictions lower no loss's worth of h and raise no loss; corrections go at sigma of the fastest pace."""
    scale = torch.logspace(-decades / 2, decades / 2, rows, dtype=torch.float64)[:, None] * 10.0**size
    jacobian, preference = drawn_jacobian(seed, rows, columns) * scale, drawn_preference(seed, rows)
    norms = jacobian.norm(dim=1)
    for losses in (drawn_losses(seed, rows), near_ray(seed, preference)):
        distance, normal = off_ray(losses, preference)
        gradient = normal @ jacobian
        rule = PMGDA(preference=preference)
        direction = rule(jacobian, losses)
        assert rule.certificate is not None
        # what long rows that nearly cancel leave of short ones is known to fewer digits
        assert rule.certificate.residual <= 1e-6 or decades > 1.0
        if distance < 0.01:
            assert abs(float(gradient @ direction)) <= 1e-9 * float((normal.abs() @ norms) * norms.max())
            assert float(direction.norm()) <= float(norms.min()) * (1 + 1e-9) + 1e-12 * float(norms.max())
        elif gradient.norm() > 1e-12 * normal.abs() @ norms:
            assert float(gradient @ direction) >= (0.95 - 1e-9) * float(gradient.norm())


def test_corrections_do_not_see_the_length_of_the_gradients() -> None:
    jacobian, losses = drawn_jacobian(0, 3, 5), drawn_losses(0, 3)
    torch.testing.assert_close(PMGDA()(1e-6 * jacobian, losses), PMGDA()(jacobian, losses))
    torch.testing.assert_close(PMGDA()(1e-6 * jacobian, torch.ones(3)), 1e-6 * PMGDA()(jacobian, torch.ones(3)))


def test_degenerate_gradients() -> None:
    row = drawn_jacobian(0, 1, 4)
    equal = row.repeat(2, 1)
    torch.testing.assert_close(PMGDA()(equal, torch.ones(2)), row[0])
    torch.testing.assert_close(PMGDA()(equal, torch.tensor([1.0, 1.001])), row[0])  # h cannot change
    torch.testing.assert_close(PMGDA()(equal, torch.tensor([1.0, 2.0])), row[0] / row.norm())
    still = torch.cat([row, 0 * row])
    torch.testing.assert_close(PMGDA()(still, torch.ones(2)), 0 * row[0])
    # the second loss is too small and stands still: the first one's gradient is what h allows, both ways
    torch.testing.assert_close(PMGDA()(still, torch.tensor([2.0, 1.0])), row[0] / row.norm())
    torch.testing.assert_close(PMGDA(sigma=1.0)(still, torch.tensor([1.0, 2.0])), -row[0] / row.norm())
    torch.testing.assert_close(PMGDA()(0 * equal, torch.tensor([1.0, 2.0])), 0 * row[0])
    torch.testing.assert_close(PMGDA()(row, torch.tensor([2.0])), row[0])


def test_a_program_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_toward_ray, "maximise_linear", lambda *_: (None, Certificate(0.0, None, "infeasible")))
    with pytest.raises(SolverError, match="PMGDA's linear program has no solution"):
        PMGDA().weights(torch.eye(2), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("start", range(2))
@pytest.mark.parametrize("preference", PREFERENCES)
def test_reaches_the_ray_on_a_concave_front(preference: list[float], start: int) -> None:
    point = starts(2)[start]
    losses = descend(PMGDA(preference=preference), point, 0.05, 150)
    assert distance_to_front(losses) <= 3e-3
    assert angle_to_ray(losses, preference) <= 0.06
    assert angle_to_ray(descend(Linear(preference=preference), point, 0.3, 80), preference) > 0.2


def test_reaches_it_with_libmoons_prediction() -> None:
    losses = descend(PMGDA(preference=[0.3, 0.7], prediction="mgda"), starts(1)[0], 0.05, 150)
    assert distance_to_front(losses) <= 3e-3
    assert angle_to_ray(losses, [0.3, 0.7]) <= 0.06


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"h_eps": 0.0}, "h_eps must be positive"),
        ({"sigma": 1.5}, r"sigma must be in \[0, 1\]"),
        ({"prediction": "none"}, "prediction must be"),
        ({"preference": [1.0, 0.0]}, "PMGDA steers to the ray"),
    ],
)
def test_bad_hyperparameters_are_refused(bad: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PMGDA(**bad)


def test_large_problems_go_to_highs() -> None:
    rule = PMGDA()
    rule(drawn_jacobian(0, 20, 30) * torch.logspace(-3, 3, 20, dtype=torch.float64)[:, None], drawn_losses(0, 20))
    assert rule.certificate is not None
    assert rule.certificate.method == "correction, HiGHS"
    assert np.isfinite(rule.certificate.residual)
