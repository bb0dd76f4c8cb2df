"""Signed ranks, their interval and Holm's correction against SciPy, statsmodels, a textbook and the definition."""

import math

import numpy as np
import pytest
from scipy.stats import PermutationMethod, wilcoxon

from mtopt.experiments.statistics._paired import LEVEL, fewest_tasks, holm, least_p, signed_rank

# Hollander and Wolfe (1973), example 3.1: depression before and after a tranquilizer
BEFORE = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
AFTER = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]


def test_hollander_and_wolfes_example():
    middle, p = signed_rank(np.subtract(AFTER, BEFORE))
    assert p == pytest.approx(2 * 0.01953, abs=1e-5)  # one-sided .0195 there
    assert middle.value == pytest.approx(-0.46, abs=1e-9)
    assert (middle.low, middle.high) == (pytest.approx(-0.786), pytest.approx(-0.010))


@pytest.mark.parametrize("count", [2, 5, 9, 20])
def test_without_ties_p_is_scipys_exact_one(count):
    for seed in range(10):
        differences = np.random.default_rng(seed).normal(0.3, 1.0, count)
        assert signed_rank(differences)[1] == pytest.approx(wilcoxon(differences, method="exact").pvalue, rel=1e-9)


@pytest.mark.parametrize(
    "differences", [[-1, -1, 2, 3, 3, 4], [0, 0, 1, 2, -2, 5, 7], [1, 1, 1, 1, 1, 1], [0, 0, 3, 4]]
)
def test_with_ties_and_zeros_p_is_that_of_all_signs(differences):
    expected = wilcoxon(differences, zero_method="pratt", method=PermutationMethod(n_resamples=np.inf)).pvalue
    assert signed_rank(differences)[1] == pytest.approx(expected, rel=1e-9)


def test_the_interval_holds_the_shifts_that_the_test_leaves():
    differences = np.random.default_rng(1).normal(0.5, 1.0, 12)
    middle, _ = signed_rank(differences)
    for end, outward in ((middle.low, -1.0), (middle.high, 1.0)):
        assert wilcoxon(differences - (end - outward * 1e-6)).pvalue > LEVEL
        assert wilcoxon(differences - (end + outward * 1e-6)).pvalue <= LEVEL


def test_turned_round_it_says_the_same():
    differences = np.random.default_rng(2).normal(0.2, 1.0, 11)
    (middle, p), (turned, same) = signed_rank(differences), signed_rank(-differences)
    assert p == same
    assert (turned.low, turned.value, turned.high) == (-middle.high, -middle.value, -middle.low)


def test_nothing_but_rounding_is_no_difference():
    assert signed_rank([0.0] * 8)[1] == 1.0
    assert signed_rank([1e-16] * 8)[1] == 1.0


def test_few_differences_have_no_interval_and_no_small_p():
    for count in range(1, 9):
        middle, p = signed_rank(np.arange(1.0, count + 1))
        assert p == least_p(count) == 2.0 ** (1 - count)
        assert (middle.low is None) == (p > LEVEL)


@pytest.mark.parametrize("comparisons", [1, 2, 5, 46, 1081])
def test_fewest_tasks_are_those_where_one_can_be_significant(comparisons):
    fewest = fewest_tasks(comparisons)
    assert least_p(fewest, comparisons) < LEVEL <= least_p(fewest - 1, comparisons)


def test_holm_is_that_of_statsmodels():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for seed in range(5):
        p = np.random.default_rng(seed).uniform(0, 0.2, 7)
        assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])
    assert holm([]) == []
    assert holm([0.01, math.nextafter(0.01, 1.0)]) == pytest.approx([0.02, 0.02])
