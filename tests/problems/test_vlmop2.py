"""VLMOP2 against its definition, and what its shape does to linear scalarization."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from mtopt.pareto import hypervolume
from mtopt.problems import create_problem


def curve(t):
    return np.stack((1 - np.exp(-((t - 1) ** 2)), 1 - np.exp(-((t + 1) ** 2))), axis=-1)


@pytest.mark.parametrize("n", [1, 2, 20])
def test_definition_and_front(n):
    problem = create_problem("vlmop2", num_variables=n)
    x = np.random.default_rng(n).normal(size=(50, n))
    expected = np.stack([1 - np.exp(-((x - s / math.sqrt(n)) ** 2).sum(1)) for s in (1, -1)], axis=1)
    np.testing.assert_allclose(problem(torch.from_numpy(x)).numpy(), expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(problem.pareto_front(33).numpy(), curve(np.linspace(1, -1, 33)), atol=1e-15)
    assert problem.pareto_front(2)[1, 0].item() == pytest.approx(0.981684, abs=5e-7)


@pytest.mark.parametrize("reference", [1.1, 1.0, 4.0])
def test_closed_form_of_the_hypervolume(reference):
    end = math.exp(-4)
    middle = math.exp(-2) * math.sqrt(2 * math.pi) * math.erf(math.sqrt(2))
    closed = (reference - 1) * (1 - end) + middle + reference * (reference - 1 + end)
    slope = lambda t: 2 * (1 - t) * math.exp(-((t - 1) ** 2))  # noqa: E731
    area, _ = quad(lambda t: (reference - curve(t)[1]) * slope(t), -1, 1)
    assert closed == pytest.approx(area + (reference - 1 + end) * reference, rel=1e-12)
    assert closed == pytest.approx({1.1: 0.552114, 1.0: 0.342114, 4.0: 15.3421}[reference], abs=6e-5)
    problem = create_problem("vlmop2")
    if reference == 1.1:
        assert problem.hypervolume == pytest.approx(closed, rel=1e-14)
    sampled = hypervolume(problem.pareto_front(2000), [reference, reference])
    assert closed - 1e-3 < sampled < closed


def test_linear_scalarization_reaches_the_two_caps_only():
    cap = 0.9575
    assert math.atanh(cap) == pytest.approx(2 * cap, abs=1e-3)
    for weight in np.linspace(0, 1, 41):
        grid = np.linspace(-1.2, 1.2, 4001)
        values = curve(grid) @ np.array([weight, 1 - weight])
        best = grid[values.argmin()]
        found = minimize_scalar(
            lambda t, w=weight: curve(t) @ np.array([w, 1 - w]), bounds=(best - 1e-3, best + 1e-3), method="bounded"
        )
        assert abs(found.x) > cap - 1e-3


def test_starts_have_a_gradient_in_many_dimensions():
    problem = create_problem("vlmop2", num_variables=100)
    x = problem.sample_starts(20).requires_grad_()
    (gradient,) = torch.autograd.grad(problem(x).sum(), x)
    assert (gradient.norm(dim=1) > 1e-3).all()


def test_no_cancellation_next_to_a_minimum():
    x = torch.full((2,), 1 / math.sqrt(2), dtype=torch.float64)
    x[0] += 1e-10
    assert create_problem("vlmop2")(x)[0].item() == pytest.approx(1e-20, rel=1e-4)


def test_fonseca_fleming_is_the_same_pair_on_a_wider_box():
    wide, narrow = create_problem("fonseca_fleming"), create_problem("vlmop2", num_variables=3)
    assert wide.bounds[1].tolist() == [4.0] * 3
    x = narrow.sample_starts(20)
    torch.testing.assert_close(wide(x), narrow(x), rtol=0, atol=0)
    assert wide.hypervolume == narrow.hypervolume
