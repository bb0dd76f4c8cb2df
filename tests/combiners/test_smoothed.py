"""Smoothed: weights that are averaged."""

from __future__ import annotations

import pytest
import torch

from mtopt.combiners import create_combiner
from mtopt.combiners.every import Every
from mtopt.combiners.smoothed import FollowsLearningRate, Smoothed
from tests.combiners.helpers import drawn_jacobian
from tests.combiners.test_every import stepped


def test_the_average_follows_the_recursion_from_the_first_weights() -> None:
    smoothed, average = Smoothed(create_combiner("mgda"), 0.8), None
    for step in range(5):
        weights = stepped(create_combiner("mgda"), step)
        average = weights if average is None else 0.8 * average + 0.2 * weights
        torch.testing.assert_close(stepped(smoothed, step), average)


def test_the_average_weighs_the_gradients_of_the_step() -> None:
    smoothed = Smoothed(create_combiner("mgda"), 0.5)
    rows = [drawn_jacobian(seed, 3, 6) for seed in (0, 1)]
    weights = [stepped(create_combiner("mgda"), seed) for seed in (0, 1)]
    smoothed(rows[0])
    torch.testing.assert_close(smoothed(rows[1]), (0.5 * weights[0] + 0.5 * weights[1]) @ rows[1])


def test_a_rule_on_tracked_gradients_weighs_the_steps_own() -> None:
    smoothed, plain = Smoothed(create_combiner("moco"), 0.0), create_combiner("moco")
    jacobian = drawn_jacobian(0, 3, 6)
    direction = smoothed(jacobian)
    plain(jacobian)
    torch.testing.assert_close(direction, plain.last_weights @ jacobian)  # type: ignore[attr-defined]


def test_without_a_past_it_is_the_rule() -> None:
    smoothed = Smoothed(create_combiner("mgda"), 0.0)
    for step in range(3):
        torch.testing.assert_close(stepped(smoothed, step), stepped(create_combiner("mgda"), step), rtol=0, atol=0)


def test_an_absent_loss_keeps_its_average_and_a_new_one_starts_with_its_weight() -> None:
    smoothed = Smoothed(create_combiner("ngdiff"), 0.5)
    first = stepped(smoothed, 0, [0, 1])
    second = stepped(smoothed, 1, [2, 1])
    fresh = [stepped(create_combiner("ngdiff"), 0), stepped(create_combiner("ngdiff"), 1)]
    torch.testing.assert_close(second, torch.stack([fresh[1][2], 0.5 * first[1] + 0.5 * fresh[1][1]]))
    third = stepped(smoothed, 2, [0])
    torch.testing.assert_close(third[0], 0.5 * first[0] + 0.5 * stepped(create_combiner("ngdiff"), 2)[0])


def test_rules_on_losses_and_on_draws() -> None:
    smoothed = Smoothed(create_combiner("si"), 0.5)
    assert smoothed.needs == "losses"
    smoothed.weights(torch.tensor([1.0, 2.0]))
    assert smoothed.weights(torch.tensor([0.5, 1.0])).tolist() == [1.5, 0.75]
    draws = torch.stack([drawn_jacobian(seed, 2, 5) for seed in range(3)])
    torch.testing.assert_close(Smoothed(create_combiner("modo"), 0.5)(draws), create_combiner("modo")(draws))
    with pytest.raises(ValueError, match=r"shape \(3, K, D\)"):
        Smoothed(create_combiner("modo"), 0.5)(draws[0])


def test_weights_that_the_rule_keeps_are_averaged_in_each_step() -> None:
    peeked, plain = (Smoothed(Every(create_combiner("mgda"), 3), 0.5) for _ in range(2))
    for step in range(7):
        expected = stepped(plain, step)
        kept = peeked.kept_weights((0, 1, 2), 3)
        assert (kept is None) == (step % 3 == 0)
        if kept is None:
            kept = stepped(peeked, step)
        else:
            assert peeked.kept_weights((), 3) is not None
            torch.testing.assert_close(kept, peeked.kept_weights((0, 1, 2), 3))
            peeked.keep((0, 1, 2), 3)
        torch.testing.assert_close(kept, expected)


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_a_wrong_share_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\), found"):
        Smoothed(create_combiner("mgda"), beta)


def test_beta_follows_the_learning_rate() -> None:
    """CR-MOGM's ``1 - lr_t / lr_0``, with a scheduler that has noted lr_0 and after it has moved."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.25, total_iters=3)
    smoothed, plain = Smoothed(create_combiner("mgda"), FollowsLearningRate(optimizer)), create_combiner("mgda")
    average = None
    for step in range(4):
        jacobian = drawn_jacobian(step, 3, 5)
        gramian = jacobian @ jacobian.T
        now, beta = plain.weights(gramian), 1.0 - scheduler.get_last_lr()[0] / 0.4
        average = now if average is None else beta * average + (1.0 - beta) * now
        torch.testing.assert_close(smoothed.weights(gramian), average)
        optimizer.step()
        scheduler.step()
    assert FollowsLearningRate(optimizer)() == pytest.approx(0.75)  # made late, it still knows lr_0
    assert repr(smoothed) == "Smoothed(MGDA(), beta=<1 - lr / 0.4>)"


def test_a_beta_that_is_no_share_is_refused_in_the_step() -> None:
    with pytest.raises(ValueError, match=r"beta must be in \[0, 1\], found 2"):
        Smoothed(create_combiner("mgda"), lambda: 2.0).weights(torch.eye(2))
