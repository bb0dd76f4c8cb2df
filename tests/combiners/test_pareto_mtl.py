"""Pareto MTL: both phases against a slow shortest vector, when they change, and the sectors it ends in."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners import MGDA
from mtopt.combiners.pareto_mtl import ParetoMTL
from mtopt.linalg import Gradients
from tests.combiners.descents import descend, distance_to_front, drawn_losses, drawn_preference, starts
from tests.combiners.helpers import drawn_jacobian

SECTORS = [[0.9, 0.1], [0.7, 0.3], [0.5, 0.5], [0.3, 0.7], [0.1, 0.9]]


def unit(vector: list[float]) -> torch.Tensor:
    result = torch.tensor(vector, dtype=torch.float64)
    return result / result.norm()


def shortest(rows: torch.Tensor) -> torch.Tensor:
    """The shortest convex combination."""
    shares = cp.Variable(len(rows), nonneg=True)
    cp.Problem(cp.Minimize(cp.sum_squares(shares @ rows.numpy())), [cp.sum(shares) == 1]).solve(cp.CLARABEL)
    return torch.from_numpy(shares.value) @ rows


def violated(losses: torch.Tensor, own: list[float], others: list[list[float]]) -> torch.Tensor:
    """The differences of unit preferences on whose wrong side the losses are."""
    differences = torch.stack([unit(other) - unit(own) for other in others])
    return differences[differences @ losses > 0]


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_both_phases_take_the_shortest_vector(rows: int) -> None:
    found = 0
    for seed in range(4):
        jacobian, losses = drawn_jacobian(seed, rows, 6), drawn_losses(seed, rows)
        own, others = drawn_preference(seed, rows), [drawn_preference(seed + 100 * j, rows) for j in range(1, 4)]
        active = violated(losses, own, others) @ jacobian
        if len(active):
            found += 1
            first = ParetoMTL(preference=own, others=others)(jacobian, losses)
            torch.testing.assert_close(first, shortest(active), rtol=0, atol=1e-4)
        second = ParetoMTL(preference=own, others=others, warmup=0)(jacobian, losses)
        expected = shortest(torch.cat([jacobian, active]))
        torch.testing.assert_close(second, expected, rtol=0, atol=1e-4)
    assert found >= 2


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 10), st.floats(0, 12), st.floats(-20, 20))
@settings(max_examples=60, deadline=None)
def test_neither_a_loss_nor_an_active_constraint_rises_in_phase_2(
    seed: int, rows: int, columns: int, decades: float, size: float
) -> None:
    scale = torch.logspace(-decades / 2, decades / 2, rows, dtype=torch.float64)[:, None] * 10.0**size
    jacobian, losses = drawn_jacobian(seed, rows, columns) * scale, drawn_losses(seed, rows)
    own = drawn_preference(seed, rows)
    rule = ParetoMTL(preference=own, warmup=0)
    direction = rule(jacobian, losses)
    corners = np.eye(rows).tolist()
    every = torch.cat([jacobian, violated(losses, own, corners) @ jacobian])
    slack = 1e-9 * float(jacobian.norm(dim=1).max()) * jacobian.norm(dim=1).max()
    assert bool((every @ direction >= direction @ direction - slack).all())
    assert float(direction.norm()) <= float(jacobian.norm(dim=1).min()) * (1 + 1e-9)
    assert rule.certificate is not None
    # what long rows that nearly cancel leave of short ones is known to fewer digits
    assert rule.certificate.residual <= 1e-6 or decades > 1.0


def test_in_the_sector_it_is_mgda() -> None:
    jacobian = drawn_jacobian(0, 3, 5)
    torch.testing.assert_close(ParetoMTL()(jacobian, torch.ones(3)), MGDA()(jacobian))


def test_phase_1_ends_with_the_sector_or_the_warmup() -> None:
    jacobian, outside, inside = drawn_jacobian(0, 2, 5), torch.tensor([1.0, 5.0]), torch.tensor([1.0, 1.1])

    def phases(rule: ParetoMTL, *losses: torch.Tensor) -> list[str]:
        seen = []
        for values in losses:
            rule(jacobian, values)
            assert rule.certificate is not None
            seen.append(rule.certificate.method[:7])
        return seen

    others = [[0.1, 0.9], [0.9, 0.1]]
    assert phases(ParetoMTL(others=others, warmup=3), *[outside] * 5) == ["phase 1"] * 3 + ["phase 2"] * 2
    # inside at once, phase 2 for good
    assert phases(ParetoMTL(others=others), outside, inside, outside) == ["phase 1", "phase 2", "phase 2"]
    assert phases(ParetoMTL(others=others, warmup=0), outside) == ["phase 2"]
    rule, resumed = ParetoMTL(others=others, warmup=3), ParetoMTL(others=others, warmup=3)
    phases(rule, outside, outside)
    resumed.load_state_dict(rule.state_dict())
    assert phases(resumed, outside, outside) == ["phase 1", "phase 2"]


def test_a_constraint_near_its_boundary_is_active_with_epsilon() -> None:
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    boundary = torch.tensor([1.0, 1.9])  # that of (.5, .5) and (.3, .7) is at an angle of 55.9 degrees, here 62.2
    rule = {"others": [[0.2, 0.8]], "warmup": 0}  # at 60.5 degrees
    assert torch.equal(ParetoMTL(**rule)(jacobian, torch.tensor([1.0, 1.7])), MGDA()(jacobian))
    assert not torch.equal(ParetoMTL(**rule)(jacobian, boundary), MGDA()(jacobian))
    near = ParetoMTL(epsilon=0.5, **rule)(jacobian, torch.tensor([1.0, 1.7]))
    assert not torch.allclose(near, MGDA()(jacobian))


def test_the_own_preference_may_be_among_the_others() -> None:
    jacobian, losses = drawn_jacobian(1, 2, 5), torch.tensor([1.0, 5.0])
    for epsilon in (0.0, 0.1):
        alone = ParetoMTL(preference=[0.7, 0.3], others=[s for s in SECTORS if s != [0.7, 0.3]], epsilon=epsilon)
        together = ParetoMTL(preference=[0.7, 0.3], others=torch.tensor(SECTORS), epsilon=epsilon)
        for _ in range(2):
            torch.testing.assert_close(alone(jacobian, losses), together(jacobian, losses))


def test_degenerate_gradients() -> None:
    row = drawn_jacobian(0, 1, 4)
    rule = {"others": [[0.1, 0.9]], "warmup": 0}
    torch.testing.assert_close(ParetoMTL(**rule)(row.repeat(2, 1), torch.ones(2)), row[0])
    # equal gradients cannot be moved between sectors, for (.5, .5) and (.9, .1) turned round
    swapped = {"preference": [0.9, 0.1], "others": [[0.1, 0.9]]}
    for warmup in (0, 5):
        stuck = ParetoMTL(warmup=warmup, **swapped)(row.repeat(2, 1), torch.tensor([1.0, 9.0]))
        torch.testing.assert_close(stuck, torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-7)
    torch.testing.assert_close(ParetoMTL(**rule)(torch.cat([row, 0 * row]), torch.ones(2)), 0 * row[0])
    torch.testing.assert_close(ParetoMTL()(row, torch.tensor([2.0])), row[0])
    torch.testing.assert_close(ParetoMTL()(row.repeat(2, 1), torch.zeros(2)), row[0])


def test_without_the_objective_of_the_preference_it_is_mgda() -> None:
    jacobian = drawn_jacobian(0, 2, 5)
    gradients = Gradients([[row] for row in jacobian], objectives=[1, 2], total=3)
    outcome = ParetoMTL(preference=[1.0, 0.0, 0.0]).combine(gradients, torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(outcome.weights, MGDA().weights(jacobian @ jacobian.T))


@pytest.mark.parametrize("own", SECTORS)
def test_ends_in_its_sector_of_a_concave_front(own: list[float]) -> None:
    losses = descend(ParetoMTL(preference=own, others=SECTORS, warmup=60), starts(1, seed=3)[0], 0.3, 150)
    assert distance_to_front(losses) <= 5e-3
    nearness = torch.stack([unit(sector) for sector in SECTORS]) @ losses
    assert float(nearness[SECTORS.index(own)]) >= float(nearness.max()) - 5e-3


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"others": [0.5, 0.5]}, r"others must have shape \(N, K\)"),
        ({"others": [[0.5, 0.5], [1.0, 1.0]]}, r"others must have rows .* in row 1"),
        ({"warmup": -1}, "warmup must be"),
        ({"warmup": True}, "warmup must be"),
        ({"epsilon": -0.1}, "epsilon must be non-negative"),
        ({"preference": [0.5, 0.6]}, "preference must be"),
    ],
)
def test_bad_hyperparameters_are_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ParetoMTL(**bad)


def test_losses_must_not_be_negative() -> None:
    with pytest.raises(ValueError, match=r"ParetoMTL needs every loss >= 0 .* for objective 1"):
        ParetoMTL()(torch.eye(2), torch.tensor([1.0, -1.0]))
