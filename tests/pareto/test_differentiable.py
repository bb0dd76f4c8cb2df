"""The hypervolume with a gradient, against the indicator and the borders between neighbours."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mtopt import NonFiniteError
from mtopt.pareto import hypervolume, hypervolume_2d, hypervolume_weights
from tests.pareto.definitions import COORDINATES, nondominated

pairs = arrays(float, st.tuples(st.integers(1, 12), st.just(2)), elements=COORDINATES)
REFERENCE = torch.tensor([0.75, 1.0], dtype=torch.float64)


@settings(deadline=None, max_examples=100)
@given(pairs)
def test_the_value_is_the_indicator(points):
    found = hypervolume_2d(torch.from_numpy(points), REFERENCE)
    assert found.item() == pytest.approx(hypervolume(points, REFERENCE), rel=1e-12, abs=1e-12)


def borders(points, reference):
    """-(f2 of the left neighbour - f2), -(f1 of the right neighbour - f1) for non-dominated points; zero for others."""
    expected = np.zeros_like(points)
    below = (points < reference).all(axis=1)
    alive = [i for i in np.flatnonzero(below) if nondominated(points[below])[np.flatnonzero(below).tolist().index(i)]]
    alive.sort(key=lambda i: points[i, 0])
    for place, i in enumerate(alive):
        left = points[alive[place - 1], 1] if place else reference[1]
        right = points[alive[place + 1], 0] if place + 1 < len(alive) else reference[0]
        expected[i] = -(left - points[i, 1]), -(right - points[i, 0])
    return expected


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 15), st.integers(0, 10**6))
def test_the_gradient_is_the_borders(count, seed):
    points = np.random.default_rng(seed).uniform(0, 1.2, (count, 2))
    leaf = torch.from_numpy(points).requires_grad_()
    (gradient,) = torch.autograd.grad(hypervolume_2d(leaf, REFERENCE), leaf)
    np.testing.assert_allclose(gradient.numpy(), borders(points, REFERENCE.numpy()), atol=1e-14)


def test_the_gradient_is_the_negative_of_the_hypervolume_weights():
    points = torch.rand(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([1.5, 1.5], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(hypervolume_2d(points, reference), points)
    weights = hypervolume_weights(points.detach(), reference, fronts=False, normalize=False)
    torch.testing.assert_close(gradient, -weights.to(gradient))


def test_gradcheck():
    points = torch.rand(12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: hypervolume_2d(p, REFERENCE), (points,))


def test_ascent_spreads_a_set_over_a_front():
    """On f2 = (1 - sqrt(f1))^2, the front of SCH scaled, from one corner of it."""
    t = torch.linspace(0.4, 0.6, 12, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.Adam([t], lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        loss = -hypervolume_2d(torch.stack((t**2, (1 - t) ** 2), dim=1), torch.tensor([1.1, 1.1]))
        loss.backward()
        optimizer.step()
    # the whole front has 1.21 - 1/6
    assert 1.21 - 1 / 6 - 0.03 < -loss.item() < 1.21 - 1 / 6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_empty_sets(dtype):
    points = torch.tensor([[0.25, 0.5]], dtype=dtype)
    assert hypervolume_2d(points, [1.0, 1.0]).dtype == dtype
    assert hypervolume_2d(points, [1.0, 1.0]).item() == 0.375
    assert hypervolume_2d(points[:0], [1.0, 1.0]).item() == 0
    outside = torch.tensor([[2.0, 0.0]], dtype=dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(hypervolume_2d(outside, [1.0, 1.0]), outside)
    assert (gradient == 0).all()


def test_one_of_equal_points_gets_the_gradient():
    points = torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(hypervolume_2d(points, [1.0, 1.0]), points)
    assert sorted(gradient.tolist()) == [[-0.5, -0.5], [0.0, 0.0]]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"points must have shape \(N, 2\)"):
        hypervolume_2d(torch.zeros(3, 3), [1, 1])
    with pytest.raises(ValueError, match=r"reference must have shape \(2,\)"):
        hypervolume_2d(torch.zeros(3, 2), [1, 1, 1])
    with pytest.raises(NonFiniteError, match="points and reference must be finite"):
        hypervolume_2d(torch.full((1, 2), torch.nan), [1, 1])
    with pytest.raises(TypeError, match=r"points must be a torch\.Tensor of a floating dtype, found list"):
        hypervolume_2d([[0.0, 0.0]], [1, 1])
