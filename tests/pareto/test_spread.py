"""Spacing and sparsity against their definitions."""

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings

from mtopt.pareto import spacing, sparsity
from tests.pareto.definitions import nondominated, point_sets


@pytest.mark.parametrize(("norm", "order"), [("l1", 1), ("l2", 2)])
@settings(deadline=None, max_examples=60)
@given(points=point_sets(max_points=12).filter(lambda p: len(p) > 1))
def test_definition(norm, order, points):
    gaps = np.linalg.norm(points[:, None] - points[None], ord=order, axis=2)
    np.fill_diagonal(gaps, np.inf)
    nearest = gaps.min(axis=1)
    expected = np.sqrt(((nearest - nearest.mean()) ** 2).mean())
    assert spacing(points, norm=norm) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_copies_are_as_near_as_can_be():
    """Two values ten times each and one alone: 20 distances of zero, and one to the nearer of the two."""
    points = np.array([[0.0, 0.0]] * 10 + [[1.0, -0.0]] * 10 + [[1.0, 3.0]])
    assert spacing(points) == pytest.approx(np.std([0.0] * 20 + [3.0]))
    assert spacing(points[:20]) == 0.0


def test_many_copies_take_no_longer_than_points():
    """A tree of copies cannot be cut: 15 s before they were counted, and here nothing but the sorting."""
    rng = np.random.default_rng(0)
    points = rng.random((10, 3))[rng.integers(10, size=100_000)]
    before = time.process_time()
    assert spacing(points) == 0.0
    assert time.process_time() - before < 3.0


def test_even_spread_is_zero():
    even = np.linspace(0, 1, 9)
    assert spacing(np.stack((even, 1 - even), axis=1)) == pytest.approx(0, abs=1e-15)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="points must hold at least two points"):
        spacing([[0.0, 1.0]])
    with pytest.raises(ValueError, match="norm must be 'l1' or 'l2', found 'max'"):
        spacing([[0.0, 1.0], [1.0, 0.0]], norm="max")


@settings(deadline=None, max_examples=60)
@given(points=point_sets(max_points=12))
def test_sparsity(points):
    front = np.unique(points[nondominated(points)], axis=0)
    expected = 0.0
    if len(front) > 1:
        for values in front.T:
            ordered = sorted(values)
            expected += sum((b - a) ** 2 for a, b in pairwise(ordered)) / (len(front) - 1)
    assert sparsity(points) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_sparsity_of_an_even_front():
    even = np.linspace(0, 1, 11)
    front = np.stack((even, 1 - even), axis=1)
    assert sparsity(front) == pytest.approx(2 * 0.01)
    assert sparsity(np.concatenate((front, front + 0.5))) == pytest.approx(2 * 0.01)
    assert sparsity([[1.0, 2.0]]) == 0
