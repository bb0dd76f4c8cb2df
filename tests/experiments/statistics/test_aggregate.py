"""Gains, interquartile means, probabilities of improvement and profiles against definitions and rliable."""

import numpy as np
import pytest

from mtopt.experiments.statistics._aggregate import gain, interquartile_gain, probability_of_improvement, profile

RANDOM = np.random.default_rng(0)
OWN, BASE = RANDOM.uniform(0.4, 0.9, (8, 5)), RANDOM.uniform(0.3, 0.8, (8, 5))  # (tasks, seeds)


def test_a_gain_turned_round_changes_its_sign_alone():
    scores, base = RANDOM.uniform(0, 5, 50), RANDOM.uniform(0, 5, 50)
    assert np.array_equal(gain(scores, base), -gain(base, scores))
    assert gain([1.0, 0.0, 2.0, 0.0, 3.0], [2.0, 1.0, 1.0, 0.0, 0.0]).tolist() == [-0.5, -1.0, 0.5, 0.0, 1.0]


def test_a_gain_does_not_know_units():
    assert gain(OWN * 1e6, BASE * 1e6) == pytest.approx(gain(OWN, BASE))


@pytest.mark.filterwarnings("ignore:random_state is deprecated:FutureWarning")
def test_interquartile_mean_and_interval_are_rliables():
    metrics, library = pytest.importorskip("rliable.metrics"), pytest.importorskip("rliable.library")
    fixed = np.tile(BASE.mean(1, keepdims=True), (1, 5))  # a base without chance in it, as rliable has none
    found = interquartile_gain(OWN, fixed)
    gains = gain(OWN, fixed).T  # there (runs, tasks)
    score, interval = library.get_interval_estimates(
        {"own": gains},
        lambda x: np.array([metrics.aggregate_iqm(x)]),
        reps=2000,
        random_state=np.random.RandomState(1),
    )
    assert found.value == pytest.approx(score["own"][0])
    width = found.high - found.low
    # ends are quantiles of 2,000 draws: off by some 3 % of the width each
    assert [found.low, found.high] == pytest.approx(interval["own"].ravel(), abs=0.1 * width)


def test_chance_in_the_base_widens_the_interval():
    fixed = np.tile(BASE.mean(1, keepdims=True), (1, 5))
    known, drawn = interquartile_gain(OWN, fixed), interquartile_gain(OWN, BASE)
    assert known.value == pytest.approx(drawn.value)
    assert drawn.high - drawn.low > known.high - known.low


def test_probability_of_improvement_is_rliables():
    metrics = pytest.importorskip("rliable.metrics")
    found = probability_of_improvement(OWN, BASE)
    assert found.value == pytest.approx(metrics.probability_of_improvement(OWN.T, BASE.T))
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    assert probability_of_improvement([[1.0, 2.0]], [[1.0, 2.0]]).value == 0.5
    assert probability_of_improvement([[3.0, 4.0]], [[1.0, 2.0, 0.0]]).text(".2f") == "1.00 (1.00 to 1.00)"


def test_profiles_are_rliables():
    library = pytest.importorskip("rliable.library")
    thresholds = np.linspace(-1, 1, 21)
    gains = gain(OWN, BASE.mean(1, keepdims=True)).T
    expected, _ = library.create_performance_profile({"own": gains}, thresholds, reps=2)
    assert profile(OWN, BASE, thresholds) == pytest.approx(expected["own"])


def test_seeds_may_differ_in_number_and_one_has_no_interval():
    ragged = [[0.5, 0.6, 0.7], [0.4]]
    found = interquartile_gain(ragged, [[0.5, 0.5], [0.5, 0.5]])
    assert found.low < found.value < found.high  # by the chance of the first task alone
    assert interquartile_gain([[0.6], [0.4]], [[0.5], [0.5]]).low is None
    # gains 0, 1/6, 2/7 and -1/5: the middle half are 0 and 1/6
    assert found.value == pytest.approx(1 / 12)
    assert profile(ragged, [[0.5], [0.5]], [0.1]).tolist() == [pytest.approx((2 / 3 + 0.0) / 2)]
