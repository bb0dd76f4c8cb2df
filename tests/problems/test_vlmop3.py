"""VLMOP3 against its definition, and its sampled front against an independent search."""

import math

import torch

from mtopt.problems import create_problem


def test_definition():
    problem = create_problem("vlmop3")
    for a, b in ((0.0, 0.0), (1.0, -2.0), (-2.5, 0.7)):
        r = a * a + b * b
        expected = [
            0.5 * r + math.sin(r),
            (3 * a - 2 * b + 4) ** 2 / 8 + (a - b + 1) ** 2 / 27 + 15,
            1 / (r + 1) - 1.1 * math.exp(-r),
        ]
        torch.testing.assert_close(problem(torch.tensor([a, b]).double()), torch.tensor(expected).double())


def test_the_front_holds_the_best_of_each_objective():
    front = create_problem("vlmop3").pareto_front(30)
    assert abs(front[:, 0].min().item()) < 1e-12
    assert abs(front[:, 1].min().item() - 15) < 1e-4  # where both squares vanish
    assert abs(front[:, 2].min().item() + 0.1) < 1e-12  # at the origin


def test_no_point_between_those_of_the_grid_is_better_by_more_than_its_step():
    problem = create_problem("vlmop3")
    front = problem.pareto_front(150)
    lower, upper = problem.bounds
    ranges = front.amax(dim=0) - front.amin(dim=0)
    near = problem.pareto_set(150).repeat(200, 1)
    moved = near + 0.01 * torch.randn(near.shape, generator=torch.Generator().manual_seed(0)).double()
    found = problem(moved.clamp(lower, upper))
    better = (found[:, None] < front[None] - 1e-3 * ranges).all(dim=-1)
    assert not better.any()
