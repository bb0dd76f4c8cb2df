"""R2 against its definition and by quadrature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from mtopt.pareto import r2, uniform_preferences
from tests.pareto.definitions import point_sets


@settings(deadline=None, max_examples=80)
@given(point_sets(objectives=(2, 4)), st.integers(0, 1000))
def test_definition(points, seed):
    ideal = points.min(axis=0) - 0.25
    weights = np.random.default_rng(seed).dirichlet(np.ones(points.shape[1]), size=6)
    expected = np.mean([min(max(w * (p - ideal)) for p in points) for w in weights])
    assert r2(points, ideal, weights) == pytest.approx(expected, rel=1e-12)


@settings(deadline=None, max_examples=25)
@given(point_sets(objectives=(2, 2)))
def test_the_exact_mean_of_two_objectives(points):
    ideal = points.min(axis=0) - 0.25
    gaps = points - ideal

    def best(w):
        return np.maximum(w * gaps[:, 0], (1 - w) * gaps[:, 1]).min()

    fine = quad(best, 0, 1, limit=400, epsabs=1e-6)[0]
    assert r2(points, ideal) == pytest.approx(fine, rel=1e-4)


def test_a_single_point_at_the_ideal_is_zero_and_a_better_set_is_smaller():
    assert r2([[0.0, 0.0]], [0, 0]) == 0
    front = np.stack((np.linspace(0, 1, 20), 1 - np.linspace(0, 1, 20)), axis=1)
    assert r2(front, [0, 0]) < r2(front[::5], [0, 0]) < r2(front[::5] + 0.1, [0, 0])
    assert r2(front, [0, 0], uniform_preferences(2, 4001)) == pytest.approx(r2(front, [0, 0]), rel=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: r2([[0.0, 1.0]], [0.5, 0.0]), "ideal must not be worse than any point"),
        (lambda: r2([[0.0, 1.0, 2.0]], [0, 0, 0]), "weights are needed for 3 objectives"),
        (lambda: r2([[0.0, 1.0]], [0, 0], [[1.0, 0, 0]]), r"weights must have shape \(M, 2\)"),
        (lambda: r2([[0.0, 1.0]], [0, 0], [[2.0, -1.0]]), "weights must be non-negative"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
