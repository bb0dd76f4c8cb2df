"""Dominance and hypervolume against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from mtopt.pareto import hypervolume, hypervolume_contributions, is_nondominated
from tests.pareto.definitions import dominated_volume, nondominated, point_sets


@settings(deadline=None, max_examples=100)
@given(point_sets(max_points=12))
def test_is_nondominated(points):
    mask = is_nondominated(points)
    assert mask.dtype == torch.bool
    assert mask.tolist() == nondominated(points).tolist()


def test_copies_of_a_nondominated_point_are_all_kept():
    assert is_nondominated([[1, 2], [1, 2], [2, 1], [2, 2]]).tolist() == [True, True, True, False]


def test_the_mask_indexes_tensors_and_arrays():
    points = np.array([[0.0, 1.0], [1.0, 2.0], [1.0, 0.0]])
    mask = is_nondominated(points)
    assert points[mask].tolist() == torch.from_numpy(points)[mask].tolist() == [[0.0, 1.0], [1.0, 0.0]]


@settings(deadline=None, max_examples=100)
@given(point_sets())
def test_hypervolume(points):
    reference = np.linspace(0.5, 1.5, points.shape[1])
    assert hypervolume(points, reference) == pytest.approx(dominated_volume(points, reference), rel=1e-12, abs=1e-12)


def test_a_point_beyond_the_reference_adds_nothing():
    assert hypervolume([[2.0, 2.0]], [1, 1]) == 0
    assert hypervolume([[1.0, 0.0]], [1, 1]) == 0
    assert hypervolume([[0.2, 0.2], [-5.0, 2.0]], [1, 1]) == pytest.approx(0.64)


def test_sphere_in_three_objectives():
    """Fine sample of the octant of the unit sphere; DTLZ2's front. At (1.1, 1.1, 1.1) the limit is 1.331 - pi/6."""
    angles = np.linspace(0, np.pi / 2, 150)
    polar, around = (grid.ravel() for grid in np.meshgrid(angles, angles))
    points = np.stack((np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)), axis=1)
    limit = 1.331 - np.pi / 6
    assert limit == pytest.approx(0.807401, abs=1e-6)
    assert limit - 0.02 < hypervolume(points, [1.1] * 3) < limit


def test_what_is_asked_is_not_changed():
    points, reference = np.array([[0.3, 0.4], [0.2, 0.9]]), np.ones(2)
    before = points.copy()
    hypervolume(points, reference)
    is_nondominated(points)
    assert (points == before).all()
    assert (reference == 1).all()


def test_wrong_reference_is_named():
    for reference in ([1.0, 1.0, 1.0], 1.0, [[1.0, 1.0]]):
        with pytest.raises(ValueError, match=r"reference must have shape \(2,\), one entry for each objective"):
            hypervolume([[0.0, 0.0]], reference)
    with pytest.raises(ValueError, match="reference must be finite"):
        hypervolume([[0.0, 0.0]], [1.0, np.nan])


@settings(deadline=None, max_examples=60)
@given(point_sets(max_points=9, objectives=(1, 4)))
def test_contributions(points):
    """Within the non-dominated points: the loss when one of them is taken away."""
    reference = np.linspace(0.5, 1.5, points.shape[1])
    found = hypervolume_contributions(points, reference)
    assert found.dtype == torch.float64
    alive = nondominated(points)
    for i, contribution in enumerate(found.tolist()):
        expected = 0.0
        if alive[i]:
            others = np.delete(points, i, axis=0)[np.delete(alive, i)]
            rest = hypervolume(others, reference) if len(others) else 0.0
            expected = hypervolume(points, reference) - rest
        assert contribution == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_copies_and_dominated_points_contribute_nothing():
    found = hypervolume_contributions([[0.5, 0.5], [0.5, 0.5], [0.7, 0.7], [0.2, 0.9], [0.0, 1.0]], [1, 1])
    assert found.tolist() == pytest.approx([0, 0, 0, 0.3 * 0.1, 0])
