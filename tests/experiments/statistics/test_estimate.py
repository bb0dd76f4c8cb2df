"""Means with their intervals against textbook values, and within the bounds of what they are means of."""

import math

import numpy as np
import pytest

from mtopt.experiments.statistics import estimate
from mtopt.experiments.statistics._estimate import bootstrapped


def test_interval_is_students():
    # t(0.975, 4) = 2.776; mean 3, standard error sqrt(2.5 / 5)
    result = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert result.value == 3.0
    assert result.half_width == pytest.approx(2.776 * math.sqrt(0.5), rel=1e-3)
    assert (result.low, result.high) == (3.0 - result.half_width, 3.0 + result.half_width)
    assert result.text(".2f") == "3.00 ± 1.96"


def test_one_seed_has_no_interval_and_none_no_estimate():
    assert estimate([2.0]).half_width is None
    assert estimate([2.0]).text(".1f") == "2.0"
    assert estimate([]) is None
    assert estimate([math.nan]) is None


def test_a_shares_interval_stays_within_it():
    near_all = estimate([0.95, 0.99, 0.999], (0.0, 1.0))
    assert near_all.high == 1.0
    assert near_all.value + near_all.half_width > 1.0
    assert near_all.text(".1f", 100.0) == f"98.0 ({100 * near_all.low:.1f} to 100.0)"
    near_none = estimate([0.0, 0.0, 0.1], (0.0, 1.0))
    assert near_none.low == 0.0


def test_a_mean_beyond_a_bound_by_rounding_is_in_its_own_interval():
    above = estimate([1.0 + 1e-12] * 3, (0.0, 1.0))
    assert above.low <= above.value <= above.high


def test_bootstrap_of_a_mean_is_as_wide_as_the_normal_interval():
    samples = [np.random.default_rng(seed).normal(seed, 1.0, 400) for seed in range(3)]
    found = bootstrapped(lambda *drawn, axis: np.mean([d.mean(axis) for d in drawn], axis=0), samples)
    spread = 1.96 * math.sqrt(sum(sample.var() / 400 for sample in samples)) / 3
    assert found.value == pytest.approx(np.mean([sample.mean() for sample in samples]))
    # quantiles of 2,000 draws are off by some 3 % of the width
    assert (found.high - found.low) / 2 == pytest.approx(spread, rel=0.1)


def test_bootstrap_does_not_draw_one_sample_from_another():
    found = bootstrapped(lambda first, second, axis: second.mean(axis) - first.mean(axis), [[0.0] * 5, [3.0] * 4])
    assert (found.low, found.value, found.high) == (3.0, 3.0, 3.0)
