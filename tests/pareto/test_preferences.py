"""Sets of preferences: their size, order, spread and bounds."""

import math
from fractions import Fraction
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.pareto import das_dennis, random_preferences, riesz_preferences, uniform_preferences


@pytest.mark.parametrize(("k", "partitions"), [(1, 3), (2, 1), (2, 10), (3, 4), (4, 3), (6, 2)])
def test_das_dennis_is_the_whole_lattice_in_order(k, partitions):
    lattice = das_dennis(k, partitions)
    counts = [c for c in product(range(partitions, -1, -1), repeat=k) if sum(c) == partitions]
    assert len(counts) == math.comb(partitions + k - 1, k - 1)
    assert lattice.dtype == torch.float64
    assert lattice.tolist() == [[float(Fraction(c, partitions)) for c in row] for row in counts]


@settings(deadline=None, max_examples=50)
@given(k=st.integers(2, 6), extra=st.integers(0, 25), share=st.sampled_from([0.0, 0.1, 0.9]))
def test_uniform_preferences(k, extra, share):
    n, minimum = k + extra, share / k
    preferences = uniform_preferences(k, n, minimum=minimum)
    assert preferences.shape == (n, k)
    assert (preferences >= minimum - 1e-15).all()
    torch.testing.assert_close(preferences.sum(1), torch.ones(n).double(), rtol=0, atol=1e-14)
    assert len({tuple(row) for row in preferences.tolist()}) == n
    assert preferences.tolist() == sorted(preferences.tolist(), reverse=True)
    # as many corners as objectives: the preferences that go furthest each way
    torch.testing.assert_close(preferences.amax(0), torch.full((k,), 1 - (k - 1) * minimum).double())
    assert torch.equal(preferences, uniform_preferences(k, n, minimum=minimum))


def test_special_cases():
    assert uniform_preferences(1, 1).tolist() == [[1.0]]
    expected = torch.tensor([[1, 0], [0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0, 1]], dtype=torch.float64)
    torch.testing.assert_close(uniform_preferences(2, 5), expected)
    assert torch.equal(uniform_preferences(3, 15), das_dennis(3, 4))


@pytest.mark.parametrize(("k", "n"), [(3, 20), (3, 50), (4, 30)])
def test_spread_is_even(k, n):
    """The emptiest place is no farther from a preference than the two nearest preferences are apart."""
    preferences = uniform_preferences(k, n)
    apart = torch.pdist(preferences).min()
    emptiest = torch.cdist(das_dennis(k, 20), preferences).amin(dim=1).max()
    assert emptiest <= 1.25 * apart


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: das_dennis(0, 2), ValueError, "num_objectives must be at least 1, found 0"),
        (lambda: das_dennis(2, 0), ValueError, "partitions must be at least 1, found 0"),
        (lambda: das_dennis(2, 2.0), TypeError, "partitions must be an int, found float"),
        (lambda: uniform_preferences(3, 2), ValueError, "n must be at least 3 for 3 objectives, found 2"),
        (lambda: uniform_preferences(1, 2), ValueError, "n must be 1, the only preference"),
        (lambda: uniform_preferences(2, 4, minimum=0.5), ValueError, r"minimum must lie in \[0, 1/2\), found 0.5"),
        (lambda: uniform_preferences(2, 4, minimum=-0.1), ValueError, "minimum must lie in"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def riesz_energy(points):
    return -(points.shape[1] ** 2) * torch.pdist(points).log()


@pytest.mark.parametrize(("k", "n"), [(3, 10), (3, 23), (4, 17), (5, 12)])
def test_riesz_preferences_repel_each_other(k, n):
    preferences = riesz_preferences(k, n)
    even = uniform_preferences(k, n)
    assert preferences.shape == (n, k)
    assert (preferences >= 0).all()
    torch.testing.assert_close(preferences.sum(1), torch.ones(n).double(), rtol=0, atol=1e-14)
    assert preferences.tolist() == sorted(preferences.tolist(), reverse=True)
    energy = torch.logsumexp(riesz_energy(preferences), dim=0)
    assert energy <= torch.logsumexp(riesz_energy(even), dim=0)
    assert energy < torch.logsumexp(riesz_energy(random_preferences(k, n)), dim=0)
    assert torch.equal(preferences, riesz_preferences(k, n))
    # a local minimum: no small move of the points along the simplex lowers the energy by more than it gained last
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        step = torch.randn(n, k, generator=generator, dtype=torch.float64)
        moved = (preferences + 1e-4 * (step - step.mean(dim=1, keepdim=True))).clamp(min=0)
        moved = moved / moved.sum(dim=1, keepdim=True)
        assert torch.logsumexp(riesz_energy(moved), dim=0) > energy - 2e-3


def test_riesz_preferences_where_the_answer_is_known():
    torch.testing.assert_close(riesz_preferences(2, 9), uniform_preferences(2, 9))
    assert torch.equal(riesz_preferences(4, 4), torch.eye(4).double())
    # 10 points of the lattice of the triangle practically stay where they are, by its symmetry
    assert torch.cdist(riesz_preferences(3, 10), das_dennis(3, 3)).amin(dim=1).max() < 0.01


def test_random_preferences():
    drawn = random_preferences(3, 4000, seed=1)
    assert drawn.shape == (4000, 3)
    torch.testing.assert_close(drawn.sum(1), torch.ones(4000).double())
    assert torch.equal(drawn, random_preferences(3, 4000, seed=1))
    assert not torch.equal(drawn, random_preferences(3, 4000, seed=2))
    # the symmetric Dirichlet distribution: mean 1/K, variance (K-1) / (K^2 (K alpha + 1))
    for concentration in (0.3, 1.0, 10.0):
        drawn = random_preferences(3, 4000, concentration=concentration)
        torch.testing.assert_close(drawn.mean(0), torch.full((3,), 1 / 3).double(), atol=0.02, rtol=0)
        variance = 2 / (9 * (3 * concentration + 1))
        torch.testing.assert_close(drawn.var(0), torch.full((3,), variance).double(), rtol=0.1, atol=0)


def test_wrong_arguments_of_the_others_are_named():
    with pytest.raises(ValueError, match="concentration must be positive and finite, found 0"):
        random_preferences(2, 3, concentration=0)
    with pytest.raises(ValueError, match="num_objectives must be at least 2"):
        riesz_preferences(1, 1)
    with pytest.raises(ValueError, match="n must be at least 3 for 3 objectives, found 2"):
        riesz_preferences(3, 2)
