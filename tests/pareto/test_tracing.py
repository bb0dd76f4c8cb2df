"""Tracing a front: exact minimisers in place of training."""

import joblib
import numpy as np
import pytest
import torch

from mtopt.pareto import Front, gd, hypervolume, trace_front, uniform_preferences
from mtopt.problems import create_problem


def test_the_front_of_a_convex_problem_is_traced():
    problem = create_problem("quadratic_pair")
    preferences = uniform_preferences(2, 11)
    front = trace_front(lambda p: problem(problem.weighted_minimizer(p[0])), preferences)
    assert isinstance(front, Front)
    assert len(front) == 11
    assert torch.equal(front.preferences, preferences)
    assert gd(front.points, problem.pareto_front(5000)) < 1e-3 * problem.pareto_front(2).max()
    assert front.nondominated().all()
    reference = problem.reference_point
    assert front.hypervolume(reference) == hypervolume(front.points, reference)
    assert 0.9 * problem.hypervolume < front.hypervolume(reference) < problem.hypervolume


def test_training_may_return_numbers_and_change_its_preference():
    def train(preference):
        preference *= 2
        return tuple(preference.tolist())

    front = trace_front(train, [[0.25, 0.75], [1.0, 0.0]])
    assert front.preferences.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert front.points.tolist() == [[0.5, 1.5], [2.0, 0.0]]


def test_graphs_are_dropped():
    weight = torch.ones(2, requires_grad=True)
    front = trace_front(lambda p: weight * p.float(), [[0.5, 0.5]])
    assert not front.points.requires_grad


def test_diverged_runs_are_kept_and_count_as_dominated():
    results = iter([[1.0, 0.0], [np.nan, 0.0], [-np.inf, np.inf], [1.0, 1.0], [0.0, 1.0]])
    front = trace_front(lambda p: next(results), uniform_preferences(2, 5))
    assert front.points[1, 0].isnan()
    assert front.nondominated().tolist() == [True, False, False, False, True]
    assert front.hypervolume([2, 2]) == hypervolume([[1.0, 0.0], [0.0, 1.0]], [2, 2])


def test_nothing_but_diverged_runs():
    front = trace_front(lambda p: [np.nan, np.nan], uniform_preferences(2, 3))
    assert not front.nondominated().any()
    assert front.hypervolume([1, 1]) == 0


@pytest.mark.parametrize(
    ("preferences", "message"),
    [
        ([0.5, 0.5], r"preferences must have shape \(N, K\)"),
        ([[0.5, 0.5], [0.5, 0.6]], r"preferences must be non-negative and sum to one.*\[0.5, 0.6\] in row 1"),
        ([[1.5, -0.5]], "preferences must be non-negative"),
    ],
)
def test_wrong_preferences_are_named_before_training(preferences, message):
    def train(preference):
        pytest.fail("training started")

    with pytest.raises(ValueError, match=message):
        trace_front(train, preferences)


def test_a_wrong_result_is_named_at_once():
    calls = []
    with pytest.raises(ValueError, match=r"train must return 2 objective values.*found shape \(3,\)"):
        trace_front(lambda p: calls.append(1) or [1.0, 2.0, 3.0], uniform_preferences(2, 5))
    assert len(calls) == 1
    with pytest.raises(ValueError, match=r"train must return 2 .*found shape \(\)"):
        trace_front(lambda p: torch.tensor(1.0), uniform_preferences(2, 5))


def test_runs_at_once_give_what_runs_in_turn_give():
    preferences = uniform_preferences(2, 5)
    alone, together = trace_front(torch.square, preferences), trace_front(torch.square, preferences, jobs=2)
    assert torch.equal(alone.points, together.points)
    assert torch.equal(alone.preferences, together.preferences)
    assert torch.equal(alone.points, preferences**2)


def test_a_wrong_result_is_named_from_wherever_it_was_computed():
    wrong = pytest.raises(ValueError, match=r"train must return 2 objective values.*found shape \(\)")
    with joblib.parallel_config(backend="threading"), wrong:
        trace_front(torch.sum, uniform_preferences(2, 3), jobs=2)


def test_each_run_starts_where_the_nearest_one_ended():
    preferences = [[1.0, 0.0], [0.0, 1.0], [0.2, 0.8], [0.9, 0.1]]
    seen = []

    def train(preference, state):
        seen.append(state)
        return preference, preference.tolist()

    front = trace_front(train, preferences, warm_start=True)
    assert front.points.tolist() == preferences
    assert seen == [None, [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]


def test_along_even_steps_that_is_the_run_before():
    seen = []

    def train(preference, state):
        seen.append(state)
        return preference, len(seen) - 1

    trace_front(train, uniform_preferences(2, 20), warm_start=True)
    assert seen == [None, *range(19)]


def test_nothing_starts_from_a_run_that_diverged():
    seen = []

    def train(preference, state):
        seen.append(state)
        run = len(seen) - 1
        return ([np.nan, 0.0] if run in (0, 2) else preference), run

    trace_front(train, uniform_preferences(2, 5), warm_start=True)
    assert seen == [None, None, 1, 1, 3]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"warm_start": True, "jobs": 2}, ValueError, "jobs must be 1, found 2; leave one out"),
        ({"jobs": 0}, ValueError, "jobs must be a number of processes, or -1 for one per core, found 0"),
        ({"warm_start": True}, TypeError, "train must return a pair.*found Tensor"),
    ],
)
def test_wrong_ways_to_run_are_named(options, error, message):
    with pytest.raises(error, match=message):
        trace_front(lambda p, state=None: p, uniform_preferences(2, 3), **options)
