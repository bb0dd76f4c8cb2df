"""EPO: its linear programs by cvxpy from the paper's definitions, what they promise, and the front it reaches."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt import SolverError
from mtopt.combiners import Linear
from mtopt.combiners.epo import EPO
from mtopt.solvers import Certificate, _exact_pareto
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


def anchored(losses: np.ndarray, preference: list[float]) -> tuple[np.ndarray, float, np.ndarray]:
    """r l, the non-uniformity and the coefficients of the anchoring direction."""
    inverse = 1.0 / np.array(preference)
    weighted = inverse * losses
    shares = weighted / weighted.sum()
    uneven = float((shares * np.log(len(losses) * shares)).sum())
    return weighted, uneven, inverse * (np.log(len(losses) * shares) - uneven)


def by_cvxpy(jacobian: np.ndarray, losses: np.ndarray, preference: list[float], relax: bool = False) -> float | None:
    """The optimal value of the program, in the weights themselves; None where there is no solution."""
    gramian = jacobian @ jacobian.T
    weighted, uneven, anchor = anchored(losses, preference)
    rates = gramian @ anchor
    weights = cp.Variable(len(losses), nonneg=True)
    constraints = [cp.sum(weights) == 1]
    if uneven > 1e-4:
        for k in range(len(losses)):
            if not (rates > 0).any() or k == weighted.argmax():
                constraints.append(gramian[k] @ weights >= 0)
            elif rates[k] <= 0:
                constraints.append(gramian[k] @ weights >= rates[k])
        objective = rates @ weights
    else:
        constraints.append(gramian @ weights >= 0)
        if not relax:
            constraints.append(rates @ weights >= min(0.0, rates.max()))
        objective = gramian.sum(0) @ weights
    problem = cp.Problem(cp.Maximize(objective), constraints)
    problem.solve(cp.CLARABEL)
    return None if problem.status == "infeasible" else float(problem.value)


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_the_balance_is_that_of_cvxpy(rows: int) -> None:
    for seed in range(4):
        jacobian, losses = drawn_jacobian(seed, rows, 6), drawn_losses(seed, rows)
        rule = EPO(preference=drawn_preference(seed, rows))
        gramian = jacobian @ jacobian.T
        weights = rule.weights(gramian, losses).numpy()
        _, _, anchor = anchored(losses.numpy(), drawn_preference(seed, rows))
        expected = by_cvxpy(jacobian.numpy(), losses.numpy(), drawn_preference(seed, rows))
        assert expected == pytest.approx(weights @ gramian.numpy() @ anchor, rel=1e-6, abs=1e-6)
        assert rule.certificate is not None
        assert rule.certificate.method.startswith("balance")
        assert rule.certificate.residual <= 1e-14


@pytest.mark.parametrize("relax", [False, True])
@pytest.mark.parametrize("rows", [2, 3, 5])
def test_the_descent_is_that_of_cvxpy(rows: int, relax: bool) -> None:
    for seed in range(4):
        jacobian, preference = drawn_jacobian(seed, rows, 6), drawn_preference(seed, rows)
        losses = torch.tensor(preference, dtype=torch.float64) * (1.0 + 0.01 * (drawn_losses(seed, rows) - 0.6))
        rule = EPO(preference=preference, relax=relax)
        gramian = jacobian @ jacobian.T
        weights = rule.weights(gramian, losses).numpy()
        expected = by_cvxpy(jacobian.numpy(), losses.numpy(), preference, relax)
        assert rule.certificate is not None
        assert rule.certificate.method.startswith("descent," if expected is not None else "descent in best balance,")
        if expected is not None:
            assert expected == pytest.approx(float(weights @ gramian.numpy().sum(1)), rel=1e-6, abs=1e-6)
        assert expected is not None or (rows > 2 and not relax)


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 12), st.floats(0, 12), st.floats(-20, 20))
@settings(max_examples=60, deadline=None)
def test_promises(seed: int, rows: int, columns: int, decades: float, size: float) -> None:
    """Weights on the simplex; the largest weighted loss never rises; on the ray, no loss does."""
    scale = torch.logspace(-decades / 2, decades / 2, rows, dtype=torch.float64)[:, None] * 10.0**size
    jacobian, losses = drawn_jacobian(seed, rows, columns) * scale, drawn_losses(seed, rows)
    preference = drawn_preference(seed, rows)
    for at in (losses, torch.tensor(preference, dtype=torch.float64)):
        rule = EPO(preference=preference)
        weights = rule.weights(jacobian @ jacobian.T, at)
        assert bool((weights >= 0).all())
        assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
        assert rule.certificate is not None
        assert rule.certificate.residual <= 1e-10
        rates = jacobian @ (weights @ jacobian)
        slack = 1e-11 * jacobian.norm(dim=1) * float(weights @ jacobian.norm(dim=1))
        if at is losses:
            assert bool((rates >= -slack)[int((losses / torch.tensor(preference)).argmax())])
        else:
            assert bool((rates >= -slack).all())


def test_balance_lets_a_small_loss_rise() -> None:
    """Two conflicting gradients, the first loss too large: ascent of the second is allowed, and taken."""
    jacobian = torch.tensor([[1.0, 0.0], [-0.5, 1.0]], dtype=torch.float64)
    direction = EPO()(jacobian, torch.tensor([3.0, 1.0]))
    rates = jacobian @ direction
    assert float(rates[0]) > 0 > float(rates[1])
    torch.testing.assert_close(direction, jacobian[0])  # the first gradient alone


def infeasible_case() -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Near the ray, with no weights that let no loss rise and keep the balance."""
    jacobian = torch.tensor([[1.0, 0.0, 3e-4], [1.0, 0.0, -3e-4], [0.0, 0.1, -1.0]], dtype=torch.float64)
    preference = np.array([0.6, 0.3 + 0.0005 * 0.09995, 0.09995])
    preference /= preference.sum()
    wish = np.array([1.0, -2.0, 0.001]) * preference  # the anchor over r
    losses = torch.from_numpy(preference * (1.0 + 1e-3 * (wish - wish.mean())))
    return jacobian, losses, preference.tolist()


def test_a_descent_without_solution_keeps_the_best_balance() -> None:
    jacobian, losses, preference = infeasible_case()
    assert by_cvxpy(jacobian.numpy() * 30, losses.numpy(), preference) is None
    rule = EPO(preference=preference)
    gramian = (jacobian @ jacobian.T).numpy()
    weights = rule.weights(torch.from_numpy(gramian), losses).numpy()
    assert rule.certificate is not None
    assert rule.certificate.method == "descent in best balance, exact simplex"
    assert (gramian @ weights >= -1e-12).all()
    # the balance is the best there is without a loss rising
    rates = gramian @ anchored(losses.numpy(), preference)[2]
    best = cp.Variable(3, nonneg=True)
    problem = cp.Problem(cp.Maximize(1e4 * rates @ best), [cp.sum(best) == 1, gramian @ best >= 0])
    problem.solve(cp.CLARABEL)
    assert rates @ weights == pytest.approx(problem.value / 1e4, abs=1e-9)
    assert rates @ weights < min(0.0, rates.max())


def test_a_program_that_fails_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_exact_pareto, "maximise_linear", lambda *_: (None, Certificate(0.0, None, "infeasible")))
    gramian = torch.eye(2, dtype=torch.float64)
    for losses in ([1.0, 2.0], [1.0, 1.0]):
        with pytest.raises(SolverError, match="EPO's linear program has no solution"):
            EPO().weights(gramian, torch.tensor(losses))


def test_no_conflict_on_the_ray() -> None:
    jacobian = torch.tensor([[2.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(EPO()(jacobian, torch.ones(2)), jacobian[0])  # rates (4, 2) in all beat (2, 2)
    row = drawn_jacobian(0, 1, 5)
    torch.testing.assert_close(EPO()(row.repeat(3, 1), torch.ones(3)), row[0])


def test_zero_gradients() -> None:
    assert EPO()(torch.zeros(2, 3), torch.tensor([1.0, 2.0])).tolist() == [0.0] * 3
    row = drawn_jacobian(0, 1, 4)
    still = torch.cat([row, 0 * row])
    torch.testing.assert_close(EPO()(still, torch.tensor([2.0, 1.0])), row[0])  # the loss that is too large moves
    torch.testing.assert_close(EPO()(still, torch.tensor([1.0, 2.0])), 0 * row[0])  # it does not: nothing is to be had
    torch.testing.assert_close(EPO()(row, torch.tensor([2.0])), row[0])


@pytest.mark.parametrize("start", range(2))
@pytest.mark.parametrize("preference", PREFERENCES)
def test_reaches_the_ray_on_a_concave_front(preference: list[float], start: int) -> None:
    """From anywhere, where linear scalarization ends at the ends."""
    point = 2.0 * starts(2)[start]
    losses = descend(EPO(preference=preference), point, 0.2, 150)
    _, uneven, _ = anchored(losses.numpy(), preference)
    assert uneven <= 3e-4  # epsilon is 1e-4
    assert distance_to_front(losses) <= 2e-3
    assert angle_to_ray(losses, preference) <= 0.03
    linear = descend(Linear(preference=preference), point, 0.3, 80)
    assert angle_to_ray(linear, preference) > 0.2


@pytest.mark.parametrize("losses", [[1.0, 0.0], [1.0, -2.0]])
def test_losses_must_be_positive(losses: list[float]) -> None:
    with pytest.raises(ValueError, match=r"EPO needs every loss > 0 .* for objective 1"):
        EPO()(torch.eye(2), torch.tensor(losses))


def test_bad_hyperparameters_are_refused() -> None:
    with pytest.raises(ValueError, match="epsilon must be positive, found 0"):
        EPO(epsilon=0.0)
    with pytest.raises(ValueError, match="EPO steers to the ray"):
        EPO(preference=[1.0, 0.0])
