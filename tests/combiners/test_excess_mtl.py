"""ExcessMTL against the paper's recursion in plain numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners.excess_mtl import ExcessMTL
from mtopt.linalg import Gradients


def plain(jacobians, step_size=1e-2):
    count = len(jacobians[0])
    squares, weights, first = np.zeros_like(jacobians[0]), np.ones(count), None
    for jacobian in jacobians:
        squares += jacobian**2
        excess = (jacobian**2 / np.sqrt(squares)).sum(1)
        if first is None:
            first = excess
        else:
            weights = weights * np.exp(step_size * excess / first)
            weights *= count / weights.sum()
    return weights, weights @ jacobians[-1]


@given(seed=st.integers(0, 10_000), step_size=st.sampled_from([0.01, 1.0]))
@settings(max_examples=30, deadline=None)
def test_follows_the_recursion(seed, step_size):
    jacobians = np.random.default_rng(seed).normal(size=(5, 3, 7))
    rule = ExcessMTL(step_size=step_size)
    for jacobian in jacobians:
        direction = rule(torch.tensor(jacobian))
    weights, expected = plain(jacobians, step_size)
    np.testing.assert_allclose(direction.numpy(), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(rule.last_weights.numpy(), weights, rtol=1e-10)


def test_the_defaults_are_the_authors():
    jacobians = np.random.default_rng(0).normal(size=(5, 3, 7))
    rule = ExcessMTL()
    for jacobian in jacobians:
        rule(torch.tensor(jacobian))
    np.testing.assert_allclose(rule.last_weights.numpy(), plain(jacobians)[0], rtol=1e-10)


def test_the_first_step_is_the_sum():
    jacobian = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ExcessMTL()(jacobian), jacobian.sum(0))


def test_the_objective_that_does_not_converge_gains_weight():
    rule = ExcessMTL(step_size=0.1)
    for step in range(1, 50):
        rule(torch.tensor([[1.0, 0.0], [0.0, 1.0 / step]]))
    assert rule.last_weights[0] > 1.05 > 0.95 > rule.last_weights[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_weights_do_not_see_the_scale_of_a_loss(factor, dtype):
    jacobians = torch.randn(4, 3, 20, generator=torch.Generator().manual_seed(1)).to(dtype)
    scale = torch.tensor([1.0, factor, 1.0], dtype=dtype)[:, None]
    first, second = ExcessMTL(step_size=1.0), ExcessMTL(step_size=1.0)
    for jacobian in jacobians:
        first(jacobian)
        second(jacobian * scale)
    torch.testing.assert_close(first.last_weights, second.last_weights, rtol=1e-5, atol=0)


def test_an_absent_loss_keeps_its_weight_and_the_others_share_theirs():
    rule = ExcessMTL(step_size=1.0)
    jacobians = torch.randn(3, 3, 10, generator=torch.Generator().manual_seed(2))
    for jacobian in jacobians[:2]:
        rule(jacobian)
    before = rule.last_weights
    outcome = rule.combine(Gradients([[row] for row in jacobians[2][:2]], objectives=[0, 1], total=3), None)
    torch.testing.assert_close(outcome.weights.sum(), before[:2].sum())
    assert not torch.allclose(outcome.weights, before[:2])
    assert float(rule._logits[2].exp()) == pytest.approx(float(before[2]), rel=1e-12)


def test_a_late_objective_starts_at_one():
    rule = ExcessMTL(step_size=0.1)
    for seed in range(3):
        rows = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))
        rule.combine(Gradients([[row] for row in rows], objectives=[0, 2], total=3), None)
    rule.combine(Gradients([[torch.ones(5)]], objectives=[1], total=3), None)
    assert rule.last_weights.tolist() == pytest.approx([1.0])
    assert float(rule._logits.exp().sum()) == pytest.approx(3.0)


def test_zero_rows_count_as_converged():
    rule = ExcessMTL(step_size=1.0)
    jacobian = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    assert rule(jacobian).tolist() == pytest.approx((jacobian[0] * rule.last_weights[0].float()).tolist())
    assert rule.last_weights.tolist() == pytest.approx([2 * np.e / (np.e + 1), 2 / (np.e + 1)])
    # its first gradient that is not zero becomes its measure
    rule(torch.tensor([[0.0, 0.0], [1e-10, 0.0]]))
    assert rule._initial.tolist() == pytest.approx([3.0, 1e-10])


def test_a_weight_that_vanished_comes_back():
    rule = ExcessMTL(step_size=1.0)
    rule(torch.tensor([[1e-3, 0.0], [0.0, 1.0]]))
    rule(torch.tensor([[1e3, 0.0], [0.0, 1.0]]))
    assert rule.last_weights[1] == 0.0
    assert bool(rule._logits.isfinite().all())
    assert bool(rule(torch.zeros(2, 2)).isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_rows(dtype):
    jacobian = torch.randn(3, 30, generator=torch.Generator().manual_seed(3)).to(dtype)
    direction = ExcessMTL()(jacobian)
    assert direction.dtype == dtype
    torch.testing.assert_close(direction, jacobian.double().sum(0).to(dtype))


def test_bad_step_sizes_are_refused():
    with pytest.raises(ValueError, match="step_size must be positive"):
        ExcessMTL(step_size=0.0)
