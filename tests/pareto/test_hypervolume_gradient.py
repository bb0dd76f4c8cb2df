"""The hypervolume's gradient against what the hypervolume does when points move."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt import NonFiniteError
from mtopt.pareto import hypervolume, hypervolume_weights, is_nondominated
from mtopt.problems import create_problem


@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), objectives=st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_they_are_the_slopes_of_the_hypervolume(seed, count, objectives):
    points = np.random.default_rng(seed).random((count, objectives))
    reference = np.full(objectives, 1.5)
    weights = hypervolume_weights(points, reference, normalize=False, fronts=False).numpy()
    for i in range(count):
        for k in range(objectives):
            # linear in each coordinate as long as no other point is passed
            gaps = points[i, k] - points[:, k]
            step = 0.5 * min(gaps[gaps > 0], default=0.1)
            moved = points.copy()
            moved[i, k] -= step
            if step < 1e-6 or (is_nondominated(moved) != is_nondominated(points)).any():
                continue  # a front of other points
            slope = (hypervolume(moved, reference) - hypervolume(points, reference)) / step
            assert weights[i, k] == pytest.approx(slope, abs=1e-9 / step)


def test_two_objectives_have_the_differences_to_the_neighbours():
    weights = hypervolume_weights([[0.5, 0.5], [0.0, 1.0], [1.0, 0.2]], [2, 3], normalize=False)
    # sorted by f1: (0, 1), (0.5, 0.5), (1, 0.2)
    expected = [[1 - 0.5, 1 - 0.5], [3 - 1, 0.5 - 0], [0.5 - 0.2, 2 - 1]]
    np.testing.assert_allclose(weights, expected, atol=1e-15)
    unit = hypervolume_weights([[0.5, 0.5], [0.0, 1.0], [1.0, 0.2]], [2, 3])
    np.testing.assert_allclose(unit, np.array(expected) / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-15)


def test_dominated_points_are_weighted_in_their_layer():
    layers = [[0.2, 0.8], [0.8, 0.2]], [[0.5, 0.9], [0.9, 0.5]], [[0.95, 0.95]]
    reference = [2.0, 2.0]
    together = hypervolume_weights(np.concatenate(layers), reference)
    alone = [hypervolume_weights(layer, reference) for layer in layers]
    assert torch.equal(together, torch.cat(alone))
    first_only = hypervolume_weights(np.concatenate(layers), reference, fronts=False)
    assert torch.equal(first_only[:2], together[:2])
    assert not first_only[2:].any()


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.1 * 4.0), (-1.0, -0.9 * 2.0)])
def test_the_reference_moves_beyond_the_worst_values(sign, expected):
    points = sign * np.array([[2.0, 4.0], [4.0, 2.0]])
    far = hypervolume_weights(points, [expected, expected], normalize=False)
    assert torch.equal(hypervolume_weights(points, [-9.0, -9.0], normalize=False), far)
    assert (far > 0).all()


def test_a_tie_is_improved_in_full():
    # improving f1 of the second point by e adds e times its whole height, although the first ties with it in f1
    weights = hypervolume_weights([[0.5, 0.8], [0.5, 0.4]], [1, 1], normalize=False, fronts=False)
    assert weights[1].tolist() == pytest.approx([0.6, 0.5])
    assert not weights[0].any()


@pytest.mark.parametrize("objectives", [2, 3])
def test_ascent_spreads_points_over_a_front(objectives):
    problem = create_problem("dtlz2", num_objectives=objectives)
    x = problem.sample_starts(6, seed=0)
    reference = torch.full((objectives,), 1.1)
    before = hypervolume(problem(x), reference)
    x = torch.nn.Parameter(x)
    optimizer = torch.optim.Adam([x], lr=0.03)
    for _ in range(60 if objectives == 2 else 200):
        optimizer.zero_grad()
        values = problem(x)
        (hypervolume_weights(values, reference) * values).sum().backward()
        optimizer.step()
        with torch.no_grad():
            x.copy_(problem.project(x))
    after = hypervolume(problem(x), reference)
    # the octant of the unit ball is what no point covers
    assert before < 0.5 * after
    assert is_nondominated(problem(x)).all()
    assert (problem(x).norm(dim=1) - 1).abs().max() < 0.05


@pytest.mark.parametrize(
    ("points", "reference", "options", "message"),
    [
        ([[1.0]], [2], {}, "at least two objectives"),
        ([[1.0, 2.0]], [2], {}, r"reference must have shape \(2,\)"),
        ([[1.0, 2.0]], [3, 3], {"stretch": 1.0}, "stretch must be above 1, found 1.0"),
    ],
)
def test_errors_name_the_argument(points, reference, options, message):
    with pytest.raises(ValueError, match=message):
        hypervolume_weights(points, reference, **options)


def test_diverged_models_are_named():
    with pytest.raises(NonFiniteError, match="first is row 1"):
        hypervolume_weights([[1.0, 2.0], [np.nan, 1.0]], [3, 3])
