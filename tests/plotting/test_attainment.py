"""Attainment surfaces, against the definition: count the seeds that reach a point."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.plotting import plot_attainment
from mtopt.plotting.attainment import attainment_surfaces

RNG = np.random.default_rng(0)
SERIES = {name: [RNG.uniform(0, 1, (5, 2)) for _ in range(7)] for name in ("linear", "stch")}


def attained(seed, targets):
    return (seed[None] <= targets[:, None]).all(axis=2).any(axis=1)


@given(st.integers(1, 9), st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_surface_bounds_what_that_share_of_the_seeds_attains(count, points, draw):
    rng = np.random.default_rng(draw)
    seeds = [rng.integers(0, 8, (points, 2)).astype(float) for _ in range(count)]
    targets = np.stack(np.meshgrid(np.arange(-1, 9), np.arange(-1, 9)), axis=-1).reshape(-1, 2).astype(float)
    reached = sum(attained(seed, targets).astype(int) for seed in seeds)
    for percentile, surface in zip((25, 50, 75, 100), attainment_surfaces(seeds, (25, 50, 75, 100)), strict=True):
        need = -(-percentile * count // 100)
        assert np.array_equal(attained(surface, targets), reached >= need)
        assert (np.diff(surface[:, 0]) > 0).all()
        assert (np.diff(surface[:, 1]) < 0).all()


def test_a_seed_that_diverged_counts_as_one_that_reached_nothing():
    good, broken = np.array([[0.0, 1.0]]), np.array([[np.nan, 1.0]])
    surfaces = attainment_surfaces([good, good, broken], (50, 75))
    assert np.array_equal(surfaces[0], good)
    assert surfaces[1].shape == (0, 2)
    assert attainment_surfaces([broken], (50,))[0].shape == (0, 2)


def test_the_figure_draws_the_median_as_a_staircase_to_the_borders():
    ax = plot_attainment(SERIES, reference=[1.1, 1.1], true_front=[[0, 0.5], [0.5, 0]], title="here")
    for name, seeds in SERIES.items():
        (line,) = [artist for artist in ax.lines if artist.get_label() == name]
        drawn = line.get_xydata()
        median = attainment_surfaces(seeds, (50,))[0]
        assert {tuple(corner) for corner in median} <= {tuple(corner) for corner in drawn}
        assert drawn[0, 1] == ax.get_ylim()[1]
        assert drawn[-1, 0] == ax.get_xlim()[1]
        assert (np.diff(drawn, axis=0) == 0).any(axis=1).all()
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["true front", "linear (7 seeds)", "stch (7 seeds)", "reference point"]
    assert len(ax.patches) == 2


def test_one_seed_has_no_band_and_given_axes_are_used():
    _, ax = plt.subplots()
    assert plot_attainment({"a": [SERIES["linear"][0]]}, ax=ax, limits="all") is ax
    assert not ax.patches
    assert not plot_attainment(SERIES, band=False).patches


def test_a_rule_that_half_of_the_seeds_lost_says_so():
    broken = np.array([[np.nan, np.nan]])
    ax = plot_attainment({"a": [SERIES["linear"][0], broken, broken]})
    assert "reached by less than half" in ax.get_legend().get_texts()[0].get_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"series": {"a": [np.zeros((3, 3))]}}, r"series\['a'\]\[0\] must have shape \(N, 2\)"),
        ({"series": {}}, "series must name at least one rule"),
        ({"labels": ["x"]}, "labels must hold 2"),
        ({"limits": "tight"}, "limits must be"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_attainment(**{"series": SERIES, **arguments})
    assert not plt.get_fignums()
