"""GRU: the retain loss is never raised, to first order, and the forget gradient is changed no more than that takes."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners.gru import GRU
from mtopt.linalg import Gradients


def draw(seed: int, steps: int = 4, columns: int = 9) -> torch.Tensor:
    return torch.randn(steps, 2, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(seed=st.integers(0, 10_000), gamma=st.sampled_from([0.2, 0.8, 1.0]), ratio=st.floats(-6, 6))
@settings(max_examples=50, deadline=None)
def test_follows_the_recursion_and_never_conflicts(seed, gamma, ratio):
    rule, average = GRU(gamma=gamma), torch.zeros(9, dtype=torch.float64)
    for retain, forget in draw(seed):
        forget = forget * 10**ratio
        average = gamma * retain + (1 - gamma) * average
        direction = rule(torch.stack([retain, forget]))
        product = float(forget @ average)
        expected = forget - min(product, 0.0) / float(average @ average) * average
        torch.testing.assert_close(direction, expected, rtol=1e-10, atol=1e-12 * 10**ratio)
        assert float(direction @ average) >= -1e-12 * float(forget.norm() * average.norm())
        assert rule.last_weights[1] == 1.0


def test_is_the_nearest_to_the_forget_gradient_that_does_not_conflict():
    retain, forget = draw(0)[0]
    forget = forget - 2 * retain
    point = cp.Variable(9)
    cp.Problem(cp.Minimize(cp.sum_squares(point - forget.numpy())), [retain.numpy() @ point >= 0]).solve(
        solver=cp.CLARABEL
    )
    np.testing.assert_allclose(GRU(gamma=1.0)(torch.stack([retain, forget])).numpy(), point.value, atol=1e-6)


def test_the_default_average_is_the_authors():
    first, second = draw(1)[:2]
    rule = GRU()
    rule(first)
    second[1] -= 3 * first[0]
    average = 0.8 * second[0] + 0.2 * 0.8 * first[0]
    expected = second[1] - (second[1] @ average) / (average @ average) * average
    torch.testing.assert_close(rule(second), expected)


@pytest.mark.parametrize("factor", [1e-20, 1e15])
def test_scales_with_the_gradients_in_float32(factor):
    jacobian = torch.tensor([[1.0, 2.0, 0.0], [-1.0, -1.0, 3.0]])
    torch.testing.assert_close(GRU()(jacobian * factor) / factor, GRU()(jacobian))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_special_pairs(dtype):
    row = torch.tensor([1.0, 2.0, -1.0], dtype=dtype)
    zero = torch.zeros_like(row)
    assert torch.equal(GRU()(torch.stack([row, row])), row)
    assert GRU()(torch.stack([row, -row])).abs().max() <= 4 * torch.finfo(torch.float32).eps
    assert torch.equal(GRU()(torch.stack([zero, row])), row)
    assert torch.equal(GRU()(torch.stack([row, zero])), zero)
    assert GRU()(torch.stack([row, row])).dtype == dtype


def test_roles_can_be_swapped():
    jacobian = draw(2)[0]
    torch.testing.assert_close(GRU(retain=1, forget=0)(jacobian.flip(0)), GRU()(jacobian))


def test_max_norm_shortens_only_what_is_longer():
    jacobian = draw(3)[0]
    free = GRU()(jacobian)
    torch.testing.assert_close(GRU(max_norm=float(free.norm()) * 2)(jacobian), free)
    rule = GRU(max_norm=1e-3)
    short = rule(jacobian)
    assert float(short.norm()) == pytest.approx(1e-3)
    torch.testing.assert_close(short / short.norm(), free / free.norm())
    torch.testing.assert_close(rule.last_weights[1], 1e-3 / free.norm())


def test_absent_losses():
    rule = GRU(gamma=1.0)
    retain = torch.tensor([1.0, 0.0])
    only = rule.combine(Gradients([[retain]], objectives=[0], total=2), None)
    assert only.direction.tolist() == [0.0, 0.0]
    # the retain gradient of the last batch still guards the forget step of this one
    late = rule.combine(Gradients([[torch.tensor([-1.0, 1.0])]], objectives=[1], total=2), None)
    assert late.direction.tolist() == [0.0, 1.0]
    assert late.weights.tolist() == [1.0]


def test_state_survives_in_a_fresh_rule():
    first = GRU(gamma=0.5)
    for jacobian in draw(4):
        first(jacobian)
    second = first.fresh()
    second.load_state_dict(first.state_dict())
    jacobian = draw(5)[0]
    jacobian[1] -= 2 * jacobian[0]
    assert torch.equal(first(jacobian), second(jacobian))
    with pytest.raises(ValueError, match="tracks gradients of 9"):
        first(torch.ones(2, 3))


def test_two_objectives_it_is():
    with pytest.raises(ValueError, match=r"GRU is for two objectives.*found 3"):
        GRU()(torch.ones(3, 4))


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"gamma": 0.0}, "gamma must"), ({"max_norm": 0.0}, "max_norm must"), ({"retain": 1}, "retain and forget must")],
)
def test_bad_hyperparameters_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        GRU(**bad)
