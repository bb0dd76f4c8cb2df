"""The corrected memory against its recursion, and what it is for."""

from __future__ import annotations

import pytest
import torch

import mtopt
from mtopt.combiners import Gradients, MSTGDStyle
from tests.combiners.helpers import drawn_jacobian

SHARES = [0.5, 0.3, 0.2]


def test_the_memory_follows_the_recursion() -> None:
    rule = MSTGDStyle(memory=0.8, preference=SHARES)
    memory = None
    for step in range(4):
        here, before = drawn_jacobian(2 * step, 3, 6), drawn_jacobian(2 * step + 1, 3, 6)
        if memory is None:
            found = rule.combine_revisited(Gradients.of(here), None, None).direction
            memory = here
        else:
            found = rule.combine_revisited(Gradients.of(here), Gradients.of(before), None).direction
            memory = torch.stack([h + 0.8 * (m - b) for h, b, m in zip(here, before, memory, strict=True)])
        torch.testing.assert_close(found, torch.tensor(SHARES, dtype=torch.float64) @ memory)


def test_without_memory_it_is_the_weighted_mean() -> None:
    jacobian = drawn_jacobian(0, 3, 6)
    expected = mtopt.create_combiner("linear", preference=SHARES)(jacobian)
    torch.testing.assert_close(MSTGDStyle(memory=0.0, preference=SHARES)(jacobian), expected)


def test_it_does_not_lag_behind_gradients_that_move() -> None:
    """Without noise the memory is the gradient itself, however far the parameters go in a step."""
    x = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([x], lr=0.3)
    rule = MSTGDStyle(memory=0.99)
    for _ in range(5):
        optimizer.zero_grad()
        mtopt.backward(lambda: [(x - 1).square().sum(), 2 * (x + 1).square().sum()], [x], rule)
        torch.testing.assert_close(x.grad, ((2 * (x - 1) + 4 * (x + 1)) / 2).detach())
        optimizer.step()


def test_noise_is_averaged_away_at_rest() -> None:
    """At a fixed point the variance of ``m = g + p (m - g)`` is (1 - p)² / (1 - p²) of a gradient's."""
    generator = torch.Generator().manual_seed(0)
    rule, p, found = MSTGDStyle(memory=0.9), 0.9, []
    for step in range(4000):
        row = torch.randn(1, 4, generator=generator, dtype=torch.float64)
        direction = rule.combine_revisited(Gradients.of(row), Gradients.of(row) if step else None, None).direction
        assert direction is not None
        found.append(direction)
    variance = float(torch.stack(found[200:]).var())
    assert variance == pytest.approx((1 - p) ** 2 / (1 - p**2), rel=0.1)


def test_a_stratum_that_is_absent_counts_with_its_memory() -> None:
    rule, rows = MSTGDStyle(memory=0.5), drawn_jacobian(1, 2, 4)
    rule.combine_revisited(Gradients.of(rows), None, None)
    alone = Gradients.of(rows[:1], objectives=[0], total=2)
    found = rule.combine_revisited(alone, alone, None).direction
    torch.testing.assert_close(found, rows.mean(0))


def test_memory_is_checked() -> None:
    with pytest.raises(ValueError, match=r"memory must be in \[0, 1\)"):
        MSTGDStyle(memory=1.0)
