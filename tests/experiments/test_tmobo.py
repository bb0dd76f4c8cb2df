"""TMOBO's parts against closed forms and brute force, and its early stopping where the future is known."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm

from benchmarks.tuning.problem import EPOCHS, HYPERVOLUME, REFERENCE, objectives
from mtopt.experiments import TMOBO
from mtopt.experiments._tmobo import may_still_add, most_telling, trajectory_improvements
from mtopt.experiments._trajectory_model import TrajectoryModel
from mtopt.pareto import hypervolume


def expected_shortfall(border, mean, deviation):
    """E[(border - y)+] for y normal."""
    z = (border - mean) / deviation
    return (border - mean) * norm.cdf(z) + deviation * norm.pdf(z)


def closed_form(mean, deviation, front, reference):
    """Expected hypervolume improvement of one point of two independent normal objectives.

    The region that the front leaves is made of strips between its consecutive f1, each open below up to the f2 before.
    """
    front = front[np.argsort(front[:, 0])]
    lefts, rights = [-math.inf, *front[:, 0]], [*front[:, 0], reference[0]]
    heights = [reference[1], *front[:, 1]]
    total = 0.0
    for left, right, height in zip(lefts, rights, heights, strict=True):
        width = expected_shortfall(right, mean[0], deviation[0])
        width -= 0.0 if math.isinf(left) else expected_shortfall(left, mean[0], deviation[0])
        total += width * expected_shortfall(height, mean[1], deviation[1])
    return total


@pytest.mark.parametrize("front", [np.empty((0, 2)), np.array([[0.2, 0.7], [0.5, 0.4], [0.8, 0.1]])])
def test_expected_improvement_of_one_epoch_is_the_closed_form(front):
    mean, deviation, reference, count = np.array([0.45, 0.35]), np.array([0.2, 0.3]), np.ones(2), 4000
    draws = mean + deviation * np.random.default_rng(0).standard_normal((count, 1, 2))
    gains = trajectory_improvements(draws, front, reference)
    error = gains.std() / math.sqrt(count)
    assert gains.mean() == pytest.approx(closed_form(mean, deviation, front, reference), abs=4 * error)


@pytest.mark.parametrize("objectives", [2, 3])
def test_improvement_of_trajectories_counts_the_cells_of_a_lattice(objectives):
    """Points with whole coordinates dominate whole cells, which can be counted."""
    random, size = np.random.default_rng(1), 6
    reference = np.full(objectives, float(size))
    cells = np.array(list(itertools.product(range(size), repeat=objectives)))

    def dominated(points):
        return (points[:, None, :] <= cells[None]).all(axis=2).any(axis=0)

    for _ in range(20):
        front = random.integers(0, size + 2, (3, objectives)).astype(float)
        trajectories = random.integers(0, size + 2, (4, 5, objectives)).astype(float)
        counted = [(dominated(points) & ~dominated(front)).sum() for points in trajectories]
        assert trajectory_improvements(trajectories, front, reference) == pytest.approx(counted, abs=1e-9)
        for points, cells_gained in zip(trajectories, counted, strict=True):
            assert may_still_add(points, 0.0 * points, front, reference) == (cells_gained > 0)
            wider = may_still_add(points, 0.5 + 0.0 * points, front, reference)
            assert wider or not cells_gained  # what is less sure is never stopped earlier


def test_samples_have_the_moments_of_the_posterior_and_pass_through_what_was_seen():
    random, epochs = np.random.default_rng(0), np.arange(1, 6)
    model = TrajectoryModel(5, seed=0)
    places = random.random((4, 1))
    inputs = np.vstack([model.inputs(x, epochs) for x in places])
    values = np.column_stack((np.sin(3 * inputs[:, 0]) + inputs[:, 1], inputs[:, 0] ** 2 - 2 * inputs[:, 1]))
    model.fit(inputs, values)
    mean, deviation = model.predict(places[0], epochs)
    assert mean == pytest.approx(values[:5], abs=0.05)
    x = np.array([0.95])
    mean, deviation = model.predict(x, epochs)
    draws = model.sample(x, epochs, 4000)
    assert np.abs(draws.mean(axis=0) - mean).max() < 5 * deviation.max() / math.sqrt(4000)
    assert draws.std(axis=0) == pytest.approx(deviation, rel=0.1)
    scaled = model.covariances(x, epochs) * values.std(axis=0)[:, None, None] ** 2
    for k in range(2):
        found = np.cov(draws[:, :, k].T)
        assert found == pytest.approx(scaled[k], abs=0.1 * scaled[k].max())


def test_the_epochs_that_are_kept_are_those_of_largest_conditional_variance():
    points = np.linspace(0, 1, 7)
    covariances = np.stack([np.exp(-((points[:, None] - points) ** 2) / 2 / scale**2) for scale in (0.3, 0.6)])
    covariances += 1e-6 * np.eye(7)
    covariances[1] *= 2
    chosen = []
    for _ in range(3):
        left = np.zeros(7)
        for c in covariances:
            known = c[np.ix_(chosen, chosen)]
            left += c.diagonal() - (c[:, chosen] * np.linalg.solve(known, c[chosen].reshape(-1, 7)).T).sum(axis=1)
        left[chosen] = -np.inf
        chosen.append(int(np.argmax(left)))
    assert most_telling(covariances, 3).tolist() == sorted(chosen)
    assert most_telling(covariances, 9).tolist() == list(range(7))


def test_a_training_is_stopped_only_where_its_later_epochs_would_add_nothing():
    tuner, spent, stopped = TMOBO(2, EPOCHS, REFERENCE, samples=8, seed=0), [], 0
    while len(spent) < 120:
        x, epoch, goes_on = tuner.propose(), 0, True
        while goes_on:
            epoch += 1
            spent.append(objectives(x, epoch))
            goes_on = tuner.observe(spent[-1])
        future = [objectives(x, later) for later in range(epoch + 1, EPOCHS + 1)]
        if future:
            stopped += 1
            (gain,) = trajectory_improvements(np.array([future]), tuner.front, np.array(REFERENCE))
            assert gain == 0
    assert stopped >= 1
    found = hypervolume(tuner.front, REFERENCE)
    assert found == pytest.approx(hypervolume(np.array(spent), REFERENCE), abs=1e-12)
    assert found < HYPERVOLUME


def test_the_front_of_the_synthetic_trainings_is_the_known_one():
    """No point lies beyond f2 = 1 - sqrt(f1), and fine trainings come near its hypervolume."""
    xs = np.array([[a, 0.8] for a in np.linspace(0, 1, 400) ** 2])
    ends = np.array([objectives(x, EPOCHS) for x in xs])
    random = np.random.default_rng(0)
    others = np.array([objectives(random.random(2), epoch) for epoch in range(1, EPOCHS + 1) for _ in range(20)])
    assert (others[:, 1] >= 1 - np.sqrt(others[:, 0].clip(max=1)) - 1e-12).all()
    assert hypervolume(ends, REFERENCE) == pytest.approx(HYPERVOLUME, abs=5e-3)
    assert hypervolume(ends, REFERENCE) < HYPERVOLUME


def test_wrong_use_and_diverged_trainings():
    with pytest.raises(ValueError, match="epochs must be at least 1, found 0"):
        TMOBO(1, 0, (1.0, 1.0))
    tuner = TMOBO(1, 5, (1.0, 1.0))
    with pytest.raises(ValueError, match="call propose first"):
        tuner.observe((0.5, 0.5))
    tuner.propose()
    with pytest.raises(ValueError, match="values must be 2 numbers"):
        tuner.observe((0.5, 0.5, 0.5))
    assert tuner.observe((0.5, 0.5))
    assert not tuner.observe((math.nan, 0.5))
    assert tuner.front.tolist() == [[0.5, 0.5]]
