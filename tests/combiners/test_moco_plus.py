"""MoCo+: the estimator and its state by hand, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mtopt.combiners import Combiner, Gradients, MoCo, MoCoPlus, Smoothed
from mtopt.solvers import project_simplex
from tests.combiners.helpers import drawn_jacobian


def beta(step: int, c: float, k: float, w: float, sigma: float) -> float:
    """beta_t for t >= 2."""
    return min(1.0, c * (k / (w + sigma**2 * (step - 1)) ** (1 / 3)) ** 2)


def test_four_steps_by_hand() -> None:
    constants = {"c": 3.0, "k": 0.4, "w": 0.2, "sigma": 0.7}
    rule = MoCoPlus(**constants, gamma=0.05)
    tracked, weights = np.zeros((3, 7)), np.full(3, 1 / 3)
    for step in range(1, 5):
        both = torch.stack([drawn_jacobian(step, 3, 7), drawn_jacobian(100 + step, 3, 7)])
        here, before = both.numpy()
        tracked = here if step == 1 else here + (1 - beta(step, **constants)) * (tracked - before)
        moved = torch.from_numpy(weights - 0.05 * tracked @ tracked.T @ weights)
        weights = np.asarray(project_simplex(moved))
        np.testing.assert_allclose(rule(both).numpy(), weights @ tracked, rtol=1e-10, atol=1e-12)
        assert rule.last_weights is not None
        np.testing.assert_allclose(rule.last_weights.numpy(), weights, rtol=1e-10, atol=1e-12)


def test_with_beta_one_the_rows_are_the_batchs_own_exactly() -> None:
    rule = MoCoPlus(c=1e12)
    for step in range(3):
        here = drawn_jacobian(step, 3, 7)
        rule(torch.stack([here, 1e6 * drawn_jacobian(50 + step, 3, 7)]))
        assert rule._tracked is not None
        assert torch.equal(rule._tracked, here)


def test_where_the_parameters_stand_still_it_averages_exponentially() -> None:
    """With gradients that are the same at both points it is MoCo with the same beta, but for MoCo's start at zero."""
    rule, plain = MoCoPlus(c=0.2, k=1.0, w=1.0, sigma=0.0), MoCo(beta=0.2, beta_decay=0.0, gamma=0.1, gamma_decay=0.0)
    first = drawn_jacobian(0, 2, 5)
    rule(first)
    plain(first)
    plain._tracked, plain._lambda = first.clone(), rule._lambda.clone()
    for step in range(1, 4):
        torch.testing.assert_close(rule(drawn_jacobian(step, 2, 5)), plain(drawn_jacobian(step, 2, 5)))


def tracking_error(rule: MoCo | MoCoPlus, seed: int) -> float:
    """Mean ``||Y - grad F||²`` over 150 steps on a circle; curvature and gradients are noisy, alike at both points."""
    random = np.random.default_rng(seed)
    curvature = [np.diag(random.uniform(0.5, 2.0, 6)) for _ in range(2)]
    minima = random.normal(size=(2, 6))
    axes = random.normal(size=(2, 6))

    def point(step: int) -> np.ndarray:  # type: ignore[type-arg]
        return np.cos(0.02 * step) * axes[0] + np.sin(0.02 * step) * axes[1]

    errors = []
    for step in range(200):
        noise = 0.3 * random.normal(size=(2, 6, 6)), random.normal(size=(2, 6))

        def batch(x: np.ndarray, noise: tuple = noise) -> np.ndarray:  # type: ignore[type-arg]
            return np.stack([(curvature[k] + noise[0][k]) @ (x - minima[k]) + noise[1][k] for k in range(2)])

        here, before = batch(point(step)), batch(point(step - 1))
        rule(torch.from_numpy(np.stack([here, before]) if isinstance(rule, MoCoPlus) else here))
        exact = np.stack([curvature[k] @ (point(step) - minima[k]) for k in range(2)])
        if step >= 50:
            assert rule._tracked is not None
            errors.append(float(((rule._tracked.numpy() - exact) ** 2).sum()))
    return float(np.mean(errors))


def test_it_tracks_more_closely_than_moco_at_equal_noise() -> None:
    """At the same beta, and against MoCo's best of a wide range, for every seed."""
    rates = (0.05, 0.1, 0.2)
    for seed in range(2):
        tracked = {rate: tracking_error(MoCo(beta=rate, beta_decay=0.0), seed) for rate in rates}
        corrected = {rate: tracking_error(MoCoPlus(c=rate, k=1.0, w=1.0, sigma=0.0), seed) for rate in rates}
        assert min(corrected.values()) < 0.7 * min(tracked.values())
        assert all(corrected[rate] < tracked[rate] for rate in rates[:2])


def test_a_loss_that_comes_back_starts_anew() -> None:
    rule = MoCoPlus(c=0.5, k=1.0, w=1.0, sigma=0.0)

    def step(seed: int, objectives: list[int]) -> torch.Tensor:
        here, before = drawn_jacobian(seed, 2, 5), drawn_jacobian(50 + seed, 2, 5)
        pair = [Gradients([[rows[k]] for k in objectives], objectives=objectives, total=2) for rows in (here, before)]
        rule.combine_revisited(pair[0], pair[1], None)
        return here

    step(0, [0, 1])
    second = rule._tracked[1].clone()  # type: ignore[index]
    step(1, [0])
    assert rule._tracked is not None
    assert torch.equal(rule._tracked[1], second)  # still takes part
    here = step(2, [0, 1])
    assert torch.equal(rule._tracked[1], here[1])
    assert not torch.equal(rule._tracked[0], here[0])


def test_the_state_goes_on_in_another_rule() -> None:
    def pair(seed: int) -> torch.Tensor:
        return torch.stack([drawn_jacobian(seed, 3, 6), drawn_jacobian(50 + seed, 3, 6)])

    rule, other = MoCoPlus(), MoCoPlus()
    for seed in range(3):
        rule(pair(seed))
    rule.visited = [torch.ones(6)]
    other.load_state_dict(rule.state_dict())
    assert other.visited is not None
    assert torch.equal(other.visited[0], torch.ones(6))
    assert torch.equal(rule(pair(3)), other(pair(3)))


def test_errors() -> None:
    for wrong in ({"c": 0.0}, {"k": -1.0}, {"gamma": 0.0}):
        with pytest.raises(ValueError, match="c, k and gamma must be positive"):
            MoCoPlus(**wrong)
    for wrong in ({"w": -1.0}, {"w": 0.0, "sigma": 0.0}):
        with pytest.raises(ValueError, match="w and sigma must be non-negative"):
            MoCoPlus(**wrong)
    with pytest.raises(ValueError, match=r"shape \(2, K, D\) or \(K, D\)"):
        MoCoPlus()(torch.zeros(3, 2, 4))
    with pytest.raises(ValueError, match="use it as it is"):
        Smoothed(MoCoPlus(), 0.5)
    with pytest.raises(TypeError, match="looks at each batch at one point"):
        MoCo().combine_revisited(Gradients([[torch.ones(2)]]), None, None)
    assert isinstance(MoCoPlus(), Combiner)
