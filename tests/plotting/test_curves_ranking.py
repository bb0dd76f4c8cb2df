"""Curves over training, and rankings."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mtopt.plotting import plot_curves, plot_ranking
from mtopt.plotting.curves import summarise
from mtopt.plotting.offscale import OFF_SCALE
from mtopt.plotting.ranking import common_format

RNG = np.random.default_rng(0)
STEPS = np.arange(0, 100, 5.0)
CURVES = {
    name: [(STEPS, np.exp(-STEPS / 30) * (1 + 0.1 * seed + i)) for seed in range(5)]
    for i, name in enumerate(("linear", "mgda", "pcgrad"))
}
SCORES = {"linear": 0.7, "mgda": 0.5, "pcgrad": 0.9}


def line(ax, label):
    (found,) = [artist for artist in ax.lines if artist.get_label() == label]
    return found


def legend_text(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_curves_draw_the_median_and_the_quartiles():
    ax = plot_curves(CURVES, xlabel="epoch", ylabel="loss (nats)")
    assert len(ax.collections) == 3
    for (name, runs), band in zip(CURVES.items(), ax.collections, strict=True):
        values = np.stack([run[1] for run in runs])
        assert np.array_equal(line(ax, name).get_xydata(), np.c_[STEPS, np.median(values, axis=0)])
        vertices = band.get_paths()[0].vertices
        for quartile in np.quantile(values, (0.25, 0.75), axis=0):
            assert np.isin(quartile, vertices[:, 1]).all()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss (nats)")
    assert "5 seeds" in ax.get_legend().get_title().get_text()


def test_a_single_seed_has_no_band_and_axes_are_used():
    _, ax = plt.subplots()
    assert plot_curves({"a": [(STEPS, STEPS)]}, ax=ax) is ax
    assert not ax.collections
    assert np.array_equal(line(ax, "a").get_xydata(), np.c_[STEPS, STEPS])


def test_seeds_at_different_steps_are_interpolated_within_their_range():
    grid, quartiles = summarise(
        [(np.array([0.0, 2.0]), np.array([0.0, 2.0])), (np.array([1.0, 3.0]), np.array([5.0, 7.0]))]
    )
    assert np.array_equal(grid, [0, 1, 2, 3])
    assert np.array_equal(quartiles[1], [0, 3, 4, 7])


def test_nan_counts_as_absent():
    steps = np.arange(3.0)
    _, quartiles = summarise([(steps, np.array([1, np.nan, np.nan])), (steps, np.array([3, 4, np.inf]))])
    assert np.array_equal(quartiles[1], [2, 4, np.nan], equal_nan=True)
    ax = plot_curves({"a": [(steps, np.array([1, np.nan, 2]))]})
    assert legend_text(ax) == ["a\n  not finite at some steps"]


def test_a_diverging_rule_does_not_flatten_the_others():
    ax = plot_curves({**CURVES, "moco": [(STEPS, np.exp(STEPS))]})
    assert ax.get_ylim()[1] < 10
    assert any(text.startswith("moco\n  off scale, up to") for text in legend_text(ax))


@pytest.mark.parametrize(
    ("values", "log", "scale"),
    [
        (np.geomspace(1, 1e-4, 20), "auto", "log"),
        (np.linspace(1, 2, 20), "auto", "linear"),
        (np.geomspace(1, 1e-4, 20) - 1e-4, "auto", "linear"),
        (np.linspace(1, 2, 20), True, "log"),
        (np.geomspace(1, 1e-4, 20), False, "linear"),
        (np.full(20, np.nan), "auto", "linear"),
    ],
)
def test_log_axis(values, log, scale):
    assert plot_curves({"a": [(STEPS, values)]}, log=log).get_yscale() == scale


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"curves": {"a": []}}, r"curves\['a'\] must be a list.*empty"),
        ({"curves": {"a": (STEPS, STEPS)}}, r"curves\['a'\]\[0\] must be a pair.*even for a single seed"),
        ({"curves": {"a": [(STEPS, STEPS[:3])]}}, r"curves\['a'\]\[0\].*\(20,\) and \(3,\)"),
        ({"curves": {"a": [(STEPS[::-1], STEPS)]}}, r"curves\['a'\]\[0\] steps.*increase"),
        ({"curves": [1]}, "curves must be a mapping"),
        ({"log": "maybe"}, "log must be"),
        ({"curves": {"a": [(STEPS, -STEPS)]}, "log": True}, r"log=True.*-95.*curves\['a'\]"),
    ],
)
def test_curve_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_curves(**{"curves": CURVES, **arguments})


@pytest.mark.parametrize(
    ("higher", "order"), [(False, ["mgda", "linear", "pcgrad"]), (True, ["pcgrad", "linear", "mgda"])]
)
def test_ranking_puts_the_best_on_top(higher, order):
    intervals = {name: (score - 0.1, score + 0.2) for name, score in SCORES.items()}
    ax = plot_ranking(SCORES, intervals, higher_is_better=higher, baseline="linear", title="here")
    assert [text.get_text() for text in ax.get_yticklabels()] == order
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    drawn = [artist.get_xydata() for artist in ax.lines]
    for row, name in enumerate(order):
        assert any(np.array_equal(data, [[SCORES[name], row]]) for data in drawn)
        assert any(np.array_equal(data, np.c_[intervals[name], [row, row]]) for data in drawn)
    assert line(ax, "linear").get_xdata()[0] == 0.7
    assert f"{SCORES[order[0]]:.3f}" in ax.texts[0].get_text()


def test_ranking_says_what_the_intervals_and_the_dashed_line_are():
    intervals = {name: (score - 0.1, score + 0.2) for name, score in SCORES.items()}
    ax = plot_ranking(SCORES, intervals, interval="quartiles over seeds", baseline="linear", xlabel="loss")
    assert ax.get_xlabel() == "← loss, lower is better\n(bar: quartiles over seeds, dashed line: linear)"
    assert plot_ranking(SCORES, intervals, interval="quartiles").get_xlabel().endswith("\n(bar: quartiles)")


def test_ranking_draws_on_axes_without_intervals_or_values():
    _, ax = plt.subplots()
    assert plot_ranking(SCORES, show_values=False, ax=ax) is ax
    assert not ax.texts


def test_groups_span_their_rows_side_by_side_right_of_the_numbers():
    scores = {name: float(rank) for rank, name in enumerate("abcd")}
    ax = plot_ranking(scores, groups=[("b", "a"), ("b", "c"), ("d", "c")])
    ax.figure.draw_without_rendering()
    bars = [artist for artist in ax.lines if artist.get_linewidth() == 2.5]
    assert [(round(low), round(high)) for low, high in (bar.get_ydata() for bar in bars)] == [(0, 1), (1, 2), (2, 3)]
    left = [bar.get_window_extent().x0 for bar in bars]
    assert left[0] == left[2] < left[1]
    assert left[0] > max(text.get_window_extent().x1 for text in ax.texts)
    assert max(left) < ax.figure.bbox.x1


def test_groups_of_rules_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"groups must name rules of means; found \['x'\]"):
        plot_ranking({"a": 1.0}, groups=[("a", "x")])


def test_ranking_says_which_rule_has_no_result_and_which_is_off_scale():
    many = {f"rule {i}": 0.5 + 0.1 * i for i in range(6)}
    ax = plot_ranking({"broken": float("nan"), **many, "moco": 100.0})
    assert [text.get_text() for text in ax.get_yticklabels()][-2:] == ["moco", "broken"]
    assert ax.get_xlim()[1] < 5
    (shown,) = [artist for artist in ax.lines if artist.get_gid() == OFF_SCALE]
    # In its own row, the last but one.
    pixel = ax.transAxes.transform(shown.get_xydata()[0])
    assert ax.transData.inverted().transform(pixel)[1] == pytest.approx(6)
    written = [text.get_text() for text in ax.texts if text.get_text()]
    assert written[-1] == "no result"


def test_ranking_text_stays_within_the_figure():
    ax = plot_ranking({"a rule with a very long name, tuned (lr=0.1)": 0.5, "b": 0.7}, title="t")
    ax.figure.draw_without_rendering()
    for text in (*ax.get_yticklabels(), *ax.texts):
        assert ax.figure.bbox.contains(*text.get_window_extent().p0)
    assert ax.bbox.width / ax.figure.dpi > 2


@pytest.mark.parametrize(
    ("scores", "form"), [([0.5], ".3f"), ([12.0, 99.0], ".1f"), ([12345.0], ".0f"), ([1e9], ".2e"), ([0.0], ".2f")]
)
def test_common_format(scores, form):
    assert common_format(scores) == form


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"means": {"a": [1, 2]}}, r"means\['a'\] must be a single number"),
        ({"means": {}}, "means must name"),
        ({"intervals": {"linear": (0, 1)}}, r"intervals must have.*\['mgda', 'pcgrad'\]"),
        ({"intervals": dict.fromkeys(SCORES, (0.1, 0.1))}, r"intervals\['linear'\].*not distances"),
        ({"intervals": dict.fromkeys(SCORES, 0.1)}, r"intervals\['linear'\] must be \(low, high\)"),
        ({"baseline": "nobody"}, "baseline must name a rule"),
        ({"interval": "quartiles"}, "interval says.*'quartiles': pass intervals"),
    ],
)
def test_ranking_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_ranking(**{"means": SCORES, **arguments})
