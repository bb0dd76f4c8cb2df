"""MOO-SVGD against its formula, computed by autograd."""

import math

import numpy as np
import pytest
import torch

from mtopt import NonFiniteError
from mtopt.pareto import moo_svgd
from mtopt.problems import create_problem


def at(x, problem):
    """Values (N, K) and Jacobians (N, K, D)."""
    values = problem(x)
    return values, torch.func.vmap(torch.func.jacrev(problem.evaluate))(x)


def by_formula(x, problem, bandwidth, repulsion):
    values, jacobians = at(x, problem)
    directions = []
    for i in range(len(x)):
        total = torch.zeros(x.shape[1], dtype=x.dtype)
        for j in range(len(x)):
            first, second = jacobians[j]
            # the shortest convex combination of two gradients
            share = ((second - first) @ second / (first - second).square().sum()).clamp(0, 1)
            down = share * first + (1 - share) * second
            moving = x[j].clone().requires_grad_()
            kernel = torch.exp(-(values[i] - problem(moving)).square().sum() / bandwidth)
            (slope,) = torch.autograd.grad(kernel, moving)
            total += kernel.detach() * down - repulsion * slope
        directions.append(total / len(x))
    return torch.stack(directions)


@pytest.mark.parametrize("repulsion", [1.0, 0.2])
def test_the_formula(repulsion):
    problem = create_problem("vlmop2", num_variables=3)
    x = problem.sample_starts(5, seed=1)
    values, jacobians = at(x, problem)
    pairs = [float((values[i] - values[j]).norm()) for i in range(5) for j in range(i)]
    heuristic = np.median(pairs) ** 2 / math.log(5)
    for bandwidth, given in ((heuristic, None), (0.3, 0.3)):
        found = moo_svgd(values, jacobians, bandwidth=given, repulsion=repulsion)
        torch.testing.assert_close(found, by_formula(x, problem, bandwidth, repulsion), rtol=1e-9, atol=1e-12)


def test_the_bandwidth_follows_the_units_of_the_losses():
    problem = create_problem("vlmop2")
    values, jacobians = at(problem.sample_starts(4, seed=0), problem)
    # both terms: J' w has the unit of the losses, the kernel's slope none; without repulsion directions scale alike
    one = moo_svgd(values, jacobians, repulsion=0.0)
    torch.testing.assert_close(moo_svgd(1e3 * values, 1e3 * jacobians, repulsion=0.0), 1e3 * one)


def test_solutions_see_each_other():
    # two points in one place of a front but for a little: they are driven apart along it
    values = torch.tensor([[0.50, 0.50], [0.51, 0.49]], dtype=torch.float64)
    jacobians = torch.tensor([[[1.0], [-1.0]]] * 2, dtype=torch.float64)  # f1 = x, f2 = 1 - x: stationary everywhere
    direction = moo_svgd(values, jacobians)
    assert direction[0] > 0 > direction[1]  # steps go along minus it: the first to smaller x


def test_copies_move_alike():
    values = torch.tensor([[0.5, 0.5]] * 3, dtype=torch.float64)
    jacobians = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]] * 3, dtype=torch.float64)
    torch.testing.assert_close(moo_svgd(values, jacobians), torch.full((3, 2), 0.5, dtype=torch.float64))


def test_dtype_and_device_are_the_jacobians():
    found = moo_svgd(torch.rand(3, 2), torch.rand(3, 2, 7, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
    assert found.shape == (3, 7)


@pytest.mark.parametrize(
    ("points", "jacobians", "options", "message"),
    [
        ((3, 2), (3, 7), {}, r"jacobians must have shape \(N, K, D\)"),
        ((3, 2), (2, 2, 7), {}, r"found \(2, 2, 7\) and \(3, 2\)"),
        ((1, 2), (1, 2, 7), {}, "at least two solutions"),
        ((3, 2), (3, 2, 7), {"bandwidth": 0.0}, "bandwidth must be positive, found 0.0"),
        ((3, 2), (3, 2, 7), {"repulsion": -1.0}, "repulsion must be non-negative, found -1.0"),
    ],
)
def test_errors_name_the_argument(points, jacobians, options, message):
    with pytest.raises(ValueError, match=message):
        moo_svgd(torch.ones(points), torch.ones(jacobians), **options)


def test_diverged_solutions_are_named():
    jacobians = torch.ones(3, 2, 4)
    jacobians[1, 0, 2] = torch.nan
    with pytest.raises(NonFiniteError, match=r"solutions \[1\] hold NaN"):
        moo_svgd(torch.ones(3, 2), jacobians)
