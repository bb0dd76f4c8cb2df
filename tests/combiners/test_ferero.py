"""FERERO: its program by cvxpy, primal and dual, the straight way to the ray, and the front it reaches."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners import Linear
from mtopt.combiners.ferero import FERERO
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


def complement(preference: list[float]) -> np.ndarray:
    """B: an orthonormal basis of what is orthogonal to the preference, one vector per row."""
    return np.linalg.svd(np.array(preference)[None])[2][1:]


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_is_the_direction_of_the_dual_program(rows: int) -> None:
    for seed in range(5):
        jacobian, losses = drawn_jacobian(seed, rows, 7), drawn_losses(seed, rows)
        preference = drawn_preference(seed, rows)
        basis = complement(preference)
        simplex, free = cp.Variable(rows, nonneg=True), cp.Variable(rows - 1)
        direction = jacobian.numpy().T @ (simplex + basis.T @ free)
        value = 0.5 * cp.sum_squares(direction) - 0.8 * free @ (basis @ losses.numpy())
        cp.Problem(cp.Minimize(value), [cp.sum(simplex) == 1]).solve(cp.CLARABEL)
        found = FERERO(preference=preference, c_h=0.8)(jacobian, losses)
        expected = torch.from_numpy(direction.value)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * float(expected.norm()))


def test_two_losses_go_straight_to_the_ray() -> None:
    """The constraint of the authors' code for two objectives, ``p_2 l_1 - p_1 l_2``, shrinks by c_h."""
    jacobian, losses = drawn_jacobian(3, 2, 5), torch.tensor([0.9, 0.4], dtype=torch.float64)
    normal = torch.tensor([0.7, -0.3], dtype=torch.float64)  # of p = (.3, .7)
    direction = FERERO(preference=[0.3, 0.7])(jacobian, losses)
    torch.testing.assert_close(normal @ (jacobian @ direction), 0.5 * (normal @ losses))


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(0, 6))
@settings(max_examples=60, deadline=None)
def test_the_losses_move_by_a_share_of_their_distance_and_along_the_ray(seed: int, rows: int, decades: float) -> None:
    scale = torch.logspace(-decades / 2, decades / 2, rows, dtype=torch.float64)[:, None]
    jacobian, losses = drawn_jacobian(seed, rows, rows + 3) * scale, drawn_losses(seed, rows)
    preference = drawn_preference(seed, rows)
    rule = FERERO(preference=preference, c_h=0.3)
    direction = rule(jacobian, losses)
    basis = torch.from_numpy(complement(preference))
    across = basis @ (jacobian @ direction)
    slack = 1e-8 * float((jacobian.norm(dim=1) * direction.norm()).max())
    torch.testing.assert_close(across, 0.3 * basis @ losses, rtol=0, atol=slack)
    assert rule.certificate is not None
    assert rule.certificate.residual <= 1e-10


def test_on_the_ray() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(FERERO()(2.0 * eye, torch.ones(3)), torch.full((3,), 2.0 / 3, dtype=torch.float64))
    row = drawn_jacobian(0, 1, 5)
    torch.testing.assert_close(FERERO()(row.repeat(3, 1), torch.ones(3)), row[0])
    # all losses fall in proportion to the preference
    jacobian, preference = drawn_jacobian(1, 3, 6), [0.2, 0.3, 0.5]
    rates = jacobian @ FERERO(preference=preference)(jacobian, torch.tensor(preference))
    torch.testing.assert_close(rates / rates.sum(), torch.tensor(preference, dtype=torch.float64))
    assert rates.sum() > 0


def test_degenerate_gradients() -> None:
    row = drawn_jacobian(0, 1, 4)
    off = torch.tensor([1.0, 2.0])
    # equal gradients and equal preferences: the distance from the ray cannot change, the descent can
    torch.testing.assert_close(FERERO()(row.repeat(2, 1), off), row[0])
    # opposite ones: the distance can, the descent cannot
    rates = torch.cat([row, -row]) @ FERERO()(torch.cat([row, -row]), off)
    torch.testing.assert_close(rates, torch.tensor([-0.25, 0.25], dtype=torch.float64))
    assert FERERO()(torch.zeros(2, 4), off).tolist() == [0.0] * 4
    torch.testing.assert_close(FERERO()(row, torch.tensor([2.0])), row[0])
    # a loss that stands still: the other one goes by itself to where the distance is least
    still = torch.cat([row, 0 * row])
    torch.testing.assert_close((row @ FERERO(c_h=1.0)(still, off))[0], torch.tensor(-1.0, dtype=torch.float64))


def test_gradients_in_float32_have_float32s_rank() -> None:
    """Equal in float32 but for rounding: nothing is to be gained by blowing the difference up."""
    jacobian = drawn_jacobian(0, 1, 1000, torch.float32).repeat(3, 1)
    jacobian[1] *= 1 + 1e-7
    direction = FERERO()(jacobian, torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(direction, jacobian[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("factor", [1e-20, 1.0, 1e20])
def test_directions_are_finite_in_float32(factor: float) -> None:
    for seed in range(5):
        jacobian, losses = drawn_jacobian(seed, 3, 6), drawn_losses(seed, 3)
        jacobian[1] = jacobian[0] + 0.1 * jacobian[1]
        single = FERERO()((factor * jacobian).float(), losses)
        double = FERERO()(factor * jacobian, losses)
        assert bool(single.isfinite().all())
        torch.testing.assert_close(single.double() / single.double().norm(), double / double.norm(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("preference", PREFERENCES)
def test_reaches_the_ray_on_a_concave_front(preference: list[float]) -> None:
    for point in starts(2):
        losses = descend(FERERO(preference=preference), point, 0.3, 60)
        assert distance_to_front(losses) <= 1e-3
        assert angle_to_ray(losses, preference) <= 1e-4
        assert angle_to_ray(descend(Linear(preference=preference), point, 0.3, 80), preference) > 0.2


def test_bad_hyperparameters_are_refused() -> None:
    with pytest.raises(ValueError, match="c_h must be non-negative, found -1"):
        FERERO(c_h=-1.0)
    with pytest.raises(ValueError, match="FERERO steers to the ray"):
        FERERO(preference=[0.0, 1.0])
