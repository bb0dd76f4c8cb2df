"""Limits that show the data, and that a few wild values cannot blow up."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mtopt.plotting.limits import padded, robust_interval
from mtopt.plotting.pieces import broken_line, front_line

RNG = np.random.default_rng(0)
CORE = [RNG.uniform(0, 1, 10) for _ in range(5)]


def test_everything_is_shown_when_nothing_is_squashed():
    assert robust_interval([*CORE, np.array([2.5])]) == (min(map(np.min, CORE)), 2.5)


@pytest.mark.parametrize("wild", [[50.0], [-50.0], [10, 20, 30, 40, 50], [5, 1e3, 1e300], [-1e9, 0.5, 1e9]])
def test_one_wild_rule_is_left_out(wild):
    low, high = robust_interval([*CORE, np.array(wild)])
    assert -0.1 <= low <= high <= 1.1


def test_one_wild_seed_of_each_rule_is_left_out():
    assert robust_interval([np.append(core, 40.0 + i) for i, core in enumerate(CORE)])[1] <= 1


def test_a_rule_with_many_points_has_no_more_say():
    assert robust_interval([*CORE, RNG.uniform(90, 100, 10_000)])[1] <= 1


def test_the_anchor_is_always_shown_and_lets_half_be_left_out():
    far = [np.full(3, 70.0 + i) for i in range(5)]
    assert robust_interval([*CORE, *far])[1] == 74
    assert robust_interval([*CORE, *far], np.array([0.0, 1.2]))[1] == 1.2
    assert robust_interval(CORE, np.array([0.0, 99.0]))[1] == 99


def test_rules_at_one_point_do_not_hide_the_others():
    assert robust_interval([np.zeros(5), np.zeros(5), np.zeros(5), np.ones(5)]) == (0, 1)
    nearly = [np.full(5, 1 + 1e-6 * i) for i in range(4)]
    assert robust_interval([*nearly, np.array([0.9, 1.1])]) == (0.9, 1.1)


def test_no_finite_value_at_all():
    assert robust_interval([np.array([np.nan, np.inf])]) == (0, 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(arrays(float, st.integers(1, 8), elements=st.floats(-1e12, 1e12)), min_size=1, max_size=6))
@example([np.array([0.0, 5e-324])])
def test_most_values_are_shown_whatever_they_are(groups):
    low, high = robust_interval(groups)
    shown = np.mean([np.mean((group >= low) & (group <= high)) for group in groups])
    assert shown >= 0.65 - 1e-9
    assert min(map(np.min, groups)) <= low <= high <= max(map(np.max, groups))
    wider = padded((low, high))
    assert wider[0] < low
    assert wider[1] > high


def test_limits_follow_the_unit():
    groups = [*CORE, np.array([30.0])]
    scaled = robust_interval([group * 1e-7 for group in groups])
    assert np.allclose(scaled, np.array(robust_interval(groups)) * 1e-7, rtol=1e-12, atol=0)


def test_a_side_with_values_beyond_gets_room_for_them():
    assert padded((0.0, 1.0), np.array([0.5])) == pytest.approx((-0.06, 1.06))
    assert padded((0.0, 1.0), np.array([9.0])) == pytest.approx((-0.06, 1.16))


def test_a_smooth_front_is_one_line_and_a_disconnected_one_is_broken():
    x = np.linspace(0, 1, 100)
    assert not np.isnan(broken_line(np.c_[x, 1 - np.sqrt(x)])).any()
    pieces = x[(x < 0.2) | ((x > 0.4) & (x < 0.6)) | (x > 0.8)]
    line = front_line([RNG.permutation(np.c_[pieces, 1 - pieces])])
    assert np.isnan(line[:, 0]).sum() == 2
    drawn = line[~np.isnan(line[:, 0])]
    assert np.array_equal(drawn, np.c_[pieces, 1 - pieces])


def test_given_pieces_are_not_joined():
    line = front_line([np.array([[0.1, 0.9], [0.0, 1.0]]), np.array([[0.5, 0.2]])])
    assert np.array_equal(line, [[0, 1], [0.1, 0.9], [np.nan, np.nan], [0.5, 0.2]], equal_nan=True)
