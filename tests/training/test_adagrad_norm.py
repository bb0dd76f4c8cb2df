"""AdaGrad-Norm against its recursion."""

import math

import pytest
import torch

from mtopt.training import AdaGradNorm


def test_steps_follow_the_recursion_over_all_groups_together():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64)) for n in (3, 2))
    optimizer = AdaGradNorm([{"params": [a]}, {"params": [b], "lr": 0.2}], lr=0.5, start=0.1)
    x, y, squares = a.detach().clone(), b.detach().clone(), 0.01
    for step in range(5):
        a.grad, b.grad = 2 * a.detach(), b.detach() - step
        g, h = a.grad.clone(), b.grad.clone()
        squares += float(g @ g + h @ h)
        x, y = x - 0.5 / math.sqrt(squares) * g, y - 0.2 / math.sqrt(squares) * h
        optimizer.step()
        torch.testing.assert_close(a.detach(), x)
        torch.testing.assert_close(b.detach(), y)
        if step == 2:  # the sum is in the checkpoint
            state = optimizer.state_dict()
            optimizer = AdaGradNorm([{"params": [a]}, {"params": [b]}], lr=9.0)
            optimizer.load_state_dict(state)


def test_the_rate_finds_the_curvature():
    """A quadratic of curvature 100, on which lr=1 alone diverges."""
    x = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = AdaGradNorm([x])
    for _ in range(300):
        x.grad = 100 * x.detach()
        optimizer.step()
    assert float(x.detach().abs()) < 1e-3


def test_what_it_refuses():
    with pytest.raises(ValueError, match="lr and start must be positive"):
        AdaGradNorm([torch.nn.Parameter(torch.ones(1))], lr=0.0)
