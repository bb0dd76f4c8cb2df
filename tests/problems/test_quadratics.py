"""Convex quadratics against their closed forms."""

import math

import numpy as np
import pytest
import torch

from mtopt.problems import QuadraticPair, create_problem


def test_values_and_gradients():
    problem = create_problem("quadratic_pair", num_variables=4, seed=2)
    x = torch.randn(4, generator=torch.Generator().manual_seed(0)).double()
    for k in range(2):
        offset = x - problem.centers[k]
        assert problem(x)[k].item() == pytest.approx(0.5 * float(offset @ problem.matrices[k] @ offset))
    gradients = torch.autograd.functional.jacobian(problem, x)
    expected = torch.einsum("kij,kj->ki", problem.matrices, x - problem.centers)
    torch.testing.assert_close(gradients, expected)


@pytest.mark.parametrize("condition", [1.0, 10.0, 1e4])
def test_drawn_matrices(condition):
    problem = create_problem("quadratic_pair", num_variables=5, condition=condition, seed=1)
    spectra = torch.linalg.eigvalsh(problem.matrices)
    torch.testing.assert_close(spectra, condition ** torch.linspace(0, 1, 5).double().expand(2, 5), rtol=1e-6, atol=0)
    assert torch.equal(problem.matrices, problem.matrices.mT)
    assert condition == 1 or not torch.allclose(problem.matrices[0], problem.matrices[1], rtol=0.1)
    again = create_problem("quadratic_pair", num_variables=5, condition=condition, seed=1)
    assert torch.equal(problem.matrices, again.matrices)
    assert torch.equal(problem.centers, again.centers)
    assert not torch.equal(problem.centers, create_problem("quadratic_pair", num_variables=5, seed=2).centers)


def test_weighted_minimizer_has_zero_weighted_gradient():
    problem = create_problem("quadratic_pair", num_variables=6, condition=50.0)
    weights = torch.linspace(0, 1, 11).double()
    for weight, x in zip(weights, problem.weighted_minimizer(weights), strict=True):
        gradients = torch.autograd.functional.jacobian(problem, x)
        combined = weight * gradients[0] + (1 - weight) * gradients[1]
        assert combined.norm().item() < 1e-12 * gradients.norm().item()
    torch.testing.assert_close(problem.weighted_minimizer(1.0), problem.centers[0])
    torch.testing.assert_close(problem.weighted_minimizer(0.0), problem.centers[1])
    with pytest.raises(ValueError, match=r"weight must lie in \[0, 1\], found"):
        problem.weighted_minimizer(1.5)


def test_equal_curvatures_have_the_front_of_two_circles():
    """With A = I, f = d^2/2 ((1-w)^2, w^2): sqrt(f1) + sqrt(f2) = d/sqrt(2)."""
    d = 3.0
    problem = QuadraticPair(matrices=[np.eye(2).tolist()] * 2, centers=[[0.0, 0.0], [d, 0.0]])
    front = problem.pareto_front(50)
    torch.testing.assert_close(front.sqrt().sum(1), torch.full((50,), d / math.sqrt(2)).double())
    corner = d**2 / 2
    torch.testing.assert_close(problem.reference_point, torch.full((2,), 1.1 * corner).double())
    # the area under sqrt(f1) + sqrt(f2) = sqrt(c) over [0, c] is c^2/6
    assert problem.hypervolume == pytest.approx((1.1 * corner) ** 2 - corner**2 / 6, rel=1e-12)


def test_the_set_is_curved():
    problem = create_problem("quadratic_pair")
    middle = problem.weighted_minimizer(0.5)
    a, b = problem.centers
    along = (b - a) / (b - a).norm()
    assert ((middle - a) - ((middle - a) @ along) * along).norm().item() > 0.1


def test_given_parts_are_copied_checked_and_sized():
    centers = torch.tensor([[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]], requires_grad=True)
    problem = QuadraticPair(centers=centers)
    assert problem.num_variables == 3
    assert QuadraticPair(matrices=np.stack([np.eye(4)] * 2)).num_variables == 4
    with torch.no_grad():
        centers.zero_()
    assert problem.centers[0, 2] == 2
    assert torch.equal(QuadraticPair(3).matrices, problem.matrices)
    assert QuadraticPair(1, seed=0).hypervolume > 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"matrices": np.ones((3, 2, 2))}, r"matrices must have shape \(2, 2, 2\), found \(3, 2, 2\)"),
        ({"matrices": np.array([[[1.0, 1], [0, 1]]] * 2)}, "matrices must be symmetric"),
        ({"matrices": np.array([[[1.0, 2], [2, 1]]] * 2)}, "matrices must be positive definite"),
        ({"centers": [[0.0, 1.0], [0.0, 1.0]]}, "centers must differ"),
        ({"centers": [[0.0, math.nan], [0.0, 1.0]]}, "centers must be finite"),
        ({"num_variables": 3, "centers": [[0.0, 1.0], [0.0, 1.0]]}, r"centers must have shape \(2, 3\)"),
        ({"condition": 0.5}, "condition must be finite and at least 1, found 0.5"),
        ({"condition": math.inf}, "condition must be finite"),
        ({"num_variables": 0}, "num_variables must be at least 1"),
    ],
)
def test_wrong_parameters_are_named(parameters, message):
    with pytest.raises(ValueError, match=message):
        QuadraticPair(**parameters)


def test_three_objectives_and_their_weighted_minimisers():
    problem = create_problem("quadratics", num_variables=5, num_objectives=3, seed=1)
    weights = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)).double()
    for weight, x in zip(weights, problem.minimizer(weights), strict=True):
        gradients = torch.autograd.functional.jacobian(problem, x)
        assert (weight @ gradients).norm().item() < 1e-12 * gradients.norm().item()
    torch.testing.assert_close(problem.minimizer(torch.eye(3)), problem.centers)
    front = problem.pareto_front(100)
    assert (front.amin(dim=0) < 1e-20).all()  # the three minima are among the points


def test_two_objectives_are_the_pair():
    pair = create_problem("quadratic_pair", num_variables=4, seed=5)
    two = create_problem("quadratics", num_variables=4, num_objectives=2, seed=5)
    assert torch.equal(pair.matrices, two.matrices)
    assert torch.equal(pair.reference_point, two.reference_point)
    x = pair.sample_starts(10)
    assert torch.equal(pair(x), two(x))


def test_given_parts_size_any_number_of_objectives():
    problem = create_problem("quadratics", centers=np.eye(4))
    assert (problem.num_objectives, problem.num_variables) == (4, 4)
    with pytest.raises(ValueError, match="num_objectives must be at least 2, found 1"):
        create_problem("quadratics", num_objectives=1)
    with pytest.raises(ValueError, match=r"weights must have shape \(\.\.\., 4\), found \(3,\)"):
        problem.minimizer(torch.ones(3))
    with pytest.raises(ValueError, match="weights must be non-negative and not all zero"):
        problem.minimizer(torch.zeros(4))
