"""Rules on several mini-batches: MoDo and SDMGrad."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt import NonFiniteError
from mtopt.combiners.modo import MoDo
from mtopt.combiners.sdmgrad import SDMGrad
from mtopt.linalg import Gradients
from mtopt.solvers import min_norm

RULES = [MoDo, SDMGrad]


def project(point):
    """The projection on the simplex by bisection on its threshold."""
    low, high = point.min() - 1.0, point.max()
    for _ in range(80):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(point - low, 0)


def draw(seed, count=3, columns=8, draws=3):
    return np.random.default_rng(seed).normal(size=(draws, count, columns))


# -- MoDo ------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), gamma=st.sampled_from([1e-3, 0.1, 10.0]), rho=st.sampled_from([0.0, 0.1]))
@settings(max_examples=30, deadline=None)
def test_modo_follows_the_recursion(seed, gamma, rho):
    rule, weights = MoDo(gamma=gamma, rho=rho), np.full(3, 1 / 3)
    for step in range(3):
        first, second, third = draw(seed + 100_000 * step)
        weights = project(weights - gamma * (first @ second.T @ weights + rho * weights))
        direction = rule(torch.tensor(np.stack([first, second, third])))
        np.testing.assert_allclose(direction.numpy(), weights @ third, rtol=1e-9, atol=1e-9)


def test_modo_defaults():
    first, second, third = draw(1) * 10.0
    weights = project(np.full(3, 1 / 3) - 1e-3 * (first @ second.T @ np.full(3, 1 / 3) + 0.1 / 3))
    np.testing.assert_allclose(MoDo()(torch.tensor(np.stack([first, second, third]))).numpy(), weights @ third)


@given(seed=st.integers(0, 10_000), count=st.integers(2, 5))
@settings(max_examples=3, deadline=None)
def test_modo_on_one_noise_free_jacobian_tends_to_mgda(seed, count):
    jacobian = torch.tensor(draw(seed, count)[0])
    gramian = jacobian @ jacobian.T
    rule = MoDo(gamma=1.0 / float(gramian.trace()), rho=0.0)
    for _ in range(2000):
        weights = rule.weights(gramian)
    shortest, _ = min_norm(gramian)
    value = float(weights @ gramian @ weights)
    assert value == pytest.approx(float(shortest @ gramian.numpy() @ shortest), rel=1e-3)
    torch.testing.assert_close(rule(jacobian.expand(3, -1, -1)), weights @ jacobian, rtol=1e-3, atol=1e-6)


# -- SDMGrad ---------------------------------------------------------------------------------------------------


def plain_sdmgrad(draws, weights, lam=0.3, steps=20, rate=5.0, momentum=0.5):
    first, second, third = draws
    cross = first @ second.T
    cross = cross / np.sqrt(np.maximum(np.diag(cross), 0)).mean() ** 2
    velocity = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + cross @ weights + lam * cross.mean(1)
        weights = project(weights - rate * velocity)
    return weights, (weights @ third + lam * third.mean(0)) / (1 + lam)


@given(seed=st.integers(0, 10_000), rate=st.sampled_from([0.05, 0.3]), momentum=st.sampled_from([0.0, 0.5]))
@settings(max_examples=10, deadline=None)
def test_sdmgrad_follows_the_recursion(seed, rate, momentum):
    rule, weights = SDMGrad(rate=rate, momentum=momentum), np.full(3, 1 / 3)
    for step in range(3):
        draws = draw(seed + 100_000 * step)
        draws[1] = draws[0] + 0.3 * draws[1]
        weights, expected = plain_sdmgrad(draws, weights, rate=rate, momentum=momentum)
        np.testing.assert_allclose(rule(torch.tensor(draws)).numpy(), expected, rtol=1e-7, atol=1e-7)


def test_sdmgrad_defaults():
    draws = draw(2)
    draws[1] = draws[0] + 0.1 * draws[1]
    _, expected = plain_sdmgrad(draws, np.full(3, 1 / 3))
    np.testing.assert_allclose(SDMGrad()(torch.tensor(draws)).numpy(), expected, rtol=1e-7)


@pytest.mark.parametrize("lam", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_sdmgrad_on_one_noise_free_jacobian_solves_its_program(lam, seed):
    count = 4
    jacobian = draw(seed, count)[0]
    point = cp.Variable(count)
    program = cp.sum_squares(jacobian.T @ point + lam * jacobian.mean(0))
    cp.Problem(cp.Minimize(program), [point >= 0, cp.sum(point) == 1]).solve(solver=cp.CLARABEL)
    rule = SDMGrad(lam=lam, rate=0.2, steps=4000)
    direction = rule(torch.tensor(jacobian).expand(3, -1, -1))
    expected = (point.value @ jacobian + lam * jacobian.mean(0)) / (1 + lam)
    np.testing.assert_allclose(direction.numpy(), expected, atol=1e-4)


def test_sdmgrad_is_mgda_and_the_mean_at_its_ends():
    jacobian = torch.tensor(draw(3)[0])
    shortest, _ = min_norm(jacobian @ jacobian.T)
    direction = SDMGrad(lam=0.0, rate=0.2, steps=4000)(jacobian.expand(3, -1, -1))
    torch.testing.assert_close(direction, torch.tensor(shortest) @ jacobian, rtol=0, atol=1e-6)
    torch.testing.assert_close(SDMGrad(lam=1e9)(jacobian.expand(3, -1, -1)), jacobian.mean(0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("factor", [1e-20, 1e20])
def test_sdmgrad_does_not_see_the_scale(factor):
    draws = torch.tensor(draw(4))
    draws[1] = draws[0] + 0.1 * draws[1]
    torch.testing.assert_close(SDMGrad()(draws * factor) / factor, SDMGrad()(draws))


def test_sdmgrad_keeps_its_weights_when_all_draws_disagree():
    row = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    rule = SDMGrad()
    torch.testing.assert_close(rule(torch.stack([row, -row, row])), torch.tensor([0.5, 0.5]))
    assert rule._lambda.tolist() == [0.5, 0.5]


# -- both ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_degenerate_draws(rule, dtype):
    ones = torch.ones(3, 2, 4, dtype=dtype)
    torch.testing.assert_close(rule()(ones), ones[0, 0])  # equal rows: themselves, whatever the weights
    assert rule()(torch.zeros_like(ones)).tolist() == [0.0] * 4
    assert torch.equal(rule()(ones[:, :1] * 3), ones[0, 0] * 3)  # one objective
    opposite = ones * torch.tensor([1.0, -1.0], dtype=dtype)[:, None]
    assert rule()(opposite).tolist() == pytest.approx([0.0] * 4)
    wide = torch.randn(3, 6, 2, generator=torch.Generator().manual_seed(0)).to(dtype)  # K > D
    assert bool(rule()(wide).isfinite().all())
    assert rule()(wide).dtype == dtype


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_extreme_scales_keep_the_weights_on_the_simplex(rule, scale):
    made = rule()
    for seed in range(4):
        made(torch.tensor(draw(seed)) * scale)
        assert float(made._lambda.sum()) == pytest.approx(1.0, abs=1e-12)
        assert bool((made._lambda >= 0).all())


@pytest.mark.parametrize("rule", RULES)
def test_state_survives_in_a_fresh_rule(rule):
    first = rule()
    for seed in range(3):
        first(torch.tensor(draw(seed)))
    second = first.fresh()
    second.load_state_dict(first.state_dict())
    draws = torch.tensor(draw(9))
    assert torch.equal(first(draws), second(draws))
    assert eval(repr(rule()), {rule.__name__: rule}).hyperparameters == rule().hyperparameters


@pytest.mark.parametrize("rule", [MoDo(gamma=0.3), SDMGrad(rate=0.1)])
def test_an_absent_loss_keeps_its_weight(rule):
    rule(torch.tensor(draw(0)))
    before = rule._lambda.clone()
    draws = draw(1)[:, [0, 2]]
    gradients = [Gradients([[torch.tensor(row)] for row in part], objectives=[0, 2], total=3) for part in draws]
    outcome = rule.combine_draws(gradients)
    assert float(rule._lambda[1]) == float(before[1])
    assert float(rule._lambda.sum()) == pytest.approx(1.0)
    assert bool((outcome.weights >= 0).all())
    # the step needs only the first two draws
    twin = rule.fresh()
    twin.load_state_dict(rule.state_dict())
    torch.testing.assert_close(rule.combine_draws(gradients).weights, twin.combine_draws(gradients[:2]).weights)


def test_a_loss_of_no_weight_alone_in_a_batch_moves_nothing():
    rule = MoDo(gamma=100.0, rho=0.0)
    both = torch.tensor([[1.0, 0.0], [0.0, 10.0]]).expand(3, -1, -1)
    rule(both)
    assert rule._lambda.tolist() == [1.0, 0.0]
    alone = [Gradients([[torch.ones(2)]], objectives=[1], total=2)] * 3
    assert rule.combine_draws(alone).weights.tolist() == [0.0]
    assert rule._lambda.tolist() == [1.0, 0.0]


def test_gradients_under_a_gradscaler_weigh_alike():
    draws = draw(5)
    plain = [Gradients([[torch.tensor(row)] for row in part]) for part in draws]
    scaled = [Gradients([[torch.tensor(row) * 1024] for row in part], scale=1024.0) for part in draws]
    rule = MoDo(gamma=0.1)
    torch.testing.assert_close(rule.fresh().combine_draws(plain).weights, rule.combine_draws(scaled).weights)


@pytest.mark.parametrize("rule", RULES)
def test_wrong_input_is_refused(rule):
    with pytest.raises(ValueError, match=r"shape \(3, K, D\).*found \(2, 4\)"):
        rule()(torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"found \(2, 2, 4\)"):
        rule()(torch.ones(2, 2, 4))
    with pytest.raises(ValueError, match="found list"):
        rule()([1.0])
    with pytest.raises(ValueError, match="floating point"):
        rule()(torch.ones(3, 2, 4, dtype=torch.int64))
    bad = torch.ones(3, 2, 4)
    bad[2, 1, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"\[\(2, 1\)\]"):
        rule()(bad)
    one = Gradients([[torch.ones(3)]])
    with pytest.raises(ValueError, match="takes 3 independent mini-batches per step, found one"):
        rule().combine(one, None)
    with pytest.raises(ValueError, match="takes 3 draws"):
        rule().combine_draws([one])
    other = Gradients([[torch.ones(3)]], objectives=[1], total=2)
    with pytest.raises(ValueError, match="same objectives"):
        rule().combine_draws([one, other, one])
    with pytest.raises(ValueError, match=r"gramian must have shape"):
        rule().weights(torch.ones(2, 3))


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (MoDo, {"gamma": 0.0}),
        (MoDo, {"rho": -1.0}),
        (SDMGrad, {"lam": -1.0}),
        (SDMGrad, {"steps": 0}),
        (SDMGrad, {"rate": 0.0}),
        (SDMGrad, {"momentum": 1.0}),
    ],
)
def test_bad_hyperparameters_are_refused(rule, bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
        rule(**bad)
