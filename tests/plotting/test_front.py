"""Fronts: what is drawn is what was given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.patches import Ellipse

from mtopt.plotting import plot_front, rule_styles, shared_legend
from mtopt.plotting.offscale import OFF_SCALE

RNG = np.random.default_rng(0)
FRONT = np.c_[np.linspace(0, 1, 50), 1 - np.linspace(0, 1, 50) ** 2]
SERIES = {name: RNG.uniform(0, 1, (6, 2)) for name in ("linear", "mgda", "pcgrad", "cagrad", "nash_mtl")}


def line(ax, label):
    (found,) = [artist for artist in ax.lines if artist.get_label() == label]
    return found


def legend_text(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def offscale(ax):
    return [artist for artist in ax.lines if artist.get_gid() == OFF_SCALE]


def test_draws_the_points_given_in_the_style_given():
    styles = rule_styles(["another", *SERIES])
    ax = plot_front(SERIES, true_front=FRONT[::-1], reference=[1.1, 1.2], styles=styles, title="here")
    for name, points in SERIES.items():
        drawn = line(ax, name)
        assert np.array_equal(drawn.get_xydata(), points)
        assert drawn.get_markeredgecolor() == styles[name].color
        assert drawn.get_marker() == styles[name].marker
    assert np.array_equal(line(ax, "true front").get_xydata(), FRONT)
    assert np.array_equal(line(ax, "reference point").get_xydata(), [[1.1, 1.2]])
    assert legend_text(ax) == ["true front", *SERIES, "reference point"]
    assert ax.get_title("left") == "here"
    assert "f1" in ax.get_xlabel()
    assert "lower is better" in ax.get_ylabel()


def test_draws_on_the_axes_given_and_keeps_what_they_show():
    _, ax = plt.subplots()
    ax.plot([-5, 5], [0, 1])
    assert plot_front(SERIES, ax=ax) is ax
    assert ax.get_xlim()[0] <= -5
    assert ax.get_xlim()[1] >= 5


@pytest.mark.parametrize(
    "points",
    [
        [[0.1, 0.9], [0.5, 0.4]],
        torch.tensor([[0.1, 0.9], [0.5, 0.4]], dtype=torch.float64, requires_grad=True),
        [np.array([0.1, 0.9]), np.array([0.5, 0.4])],
        [[[0.1, 0.9]], [[0.5, 0.4]]],
        np.array([[[0.1, 0.9]], [[0.5, 0.4]]]),
    ],
)
def test_takes_lists_tensors_and_seeds(points):
    assert np.array_equal(line(plot_front({"a": points}), "a").get_xydata(), [[0.1, 0.9], [0.5, 0.4]])


def test_spread_draws_the_mean_and_an_ellipse_of_one_deviation():
    seeds = [np.array([[0.2, 0.8], [0.6, 0.4]]) + RNG.normal(0, 0.05, (2, 2)) for _ in range(2000)]
    ax = plot_front({"a": seeds}, spread=True)
    assert np.allclose(line(ax, "a").get_xydata(), np.mean(seeds, axis=0))
    ellipses = [patch for patch in ax.patches if isinstance(patch, Ellipse)]
    assert len(ellipses) == 2
    assert ellipses[0].width == pytest.approx(0.1, rel=0.1)
    assert "2000 seeds" in ax.get_legend().get_title().get_text()


def test_the_ellipse_leans_as_the_seeds_do():
    seeds = [np.array([t, 2 * t]) for t in (0.1, 0.2, 0.3, 0.4)]
    ax = plot_front({"a": seeds}, spread="ellipse")
    (ellipse,) = [patch for patch in ax.patches if isinstance(patch, Ellipse)]
    assert np.tan(np.radians(ellipse.angle)) == pytest.approx(2)
    assert ellipse.height == pytest.approx(0, abs=1e-6)


def test_two_seeds_get_bars():
    ax = plot_front({"a": [np.zeros(2), np.ones(2)]}, spread=True)
    assert not ax.patches
    assert len(ax.collections) == 2


def test_connect_joins_the_points_by_f1():
    ax = plot_front(SERIES, connect={"linear"})
    joined = [artist for artist in ax.lines if len(artist.get_xydata()) == 6 and artist.get_linestyle() != "None"]
    assert len(joined) == 1
    assert np.array_equal(joined[0].get_xydata(), SERIES["linear"][np.argsort(SERIES["linear"][:, 0])])


def test_a_wild_rule_neither_squashes_the_others_nor_disappears():
    wild = {**SERIES, "moco": np.array([[52.1, 0.4], [0.5, 0.5]])}
    ax = plot_front(wild, true_front=FRONT)
    assert ax.get_xlim()[1] < 1.5
    (shown,) = offscale(ax)
    assert np.all((shown.get_xydata() > 0) & (shown.get_xydata() < 1))
    assert "moco\n  1 of 2 off scale: f1 to 52.1" in legend_text(ax)
    everything = plot_front(wild, true_front=FRONT, limits="all")
    assert everything.get_xlim()[1] > 52.1
    assert not offscale(everything)


def test_a_wild_seed_is_told_even_where_the_mean_is_drawn():
    seeds = [RNG.normal(0.5, 0.05, 2) for _ in range(4)]
    ax = plot_front(
        {**{name: list(points) for name, points in SERIES.items()}, "a": [*seeds, np.array([9, 0.5])]}, spread=True
    )
    assert any(text.startswith("a\n  1 of 5 off scale: f1 to 9") for text in legend_text(ax))
    assert offscale(ax)


def test_points_that_are_not_finite_are_said_to_be_so():
    ax = plot_front({**SERIES, "moco": [[np.nan, 0.4], [0.5, 0.5], [np.inf, 1.0]]})
    assert "moco\n  2 of 3 not finite" in legend_text(ax)


def test_a_far_reference_point_does_not_squash_the_data():
    ax = plot_front(SERIES, true_front=FRONT, reference=[100, 100])
    assert ax.get_xlim()[1] < 1.5
    assert any("reference point\n  off scale" in text for text in legend_text(ax))


def test_given_limits_are_kept():
    ax = plot_front(SERIES, limits=((0, 0.5), (-1, 2)))
    assert ax.get_xlim() == (0, 0.5)
    assert ax.get_ylim() == (-1, 2)


@pytest.mark.parametrize("place", ["outside", "inside"])
def test_the_legend_covers_no_data(place):
    dense = {name: RNG.uniform(0, 1, (300, 2)) for name in ("a", "b")}
    ax = plot_front(dense, legend=place)
    ax.figure.draw_without_rendering()
    box = ax.get_legend().get_window_extent()
    pixels = ax.transData.transform(np.concatenate(list(dense.values())))
    assert not any(box.contains(*pixel) for pixel in pixels)
    assert box.x1 <= ax.figure.bbox.x1


def test_the_legend_goes_inside_where_there_is_room():
    ax = plot_front({"a": FRONT}, legend="inside")
    ax.figure.draw_without_rendering()
    assert ax.bbox.contains(*ax.get_legend().get_window_extent().p0)


def test_many_rules_get_a_legend_no_higher_than_the_figure():
    ax = plot_front({f"rule {i}": RNG.uniform(0, 1, (2, 2)) for i in range(47)})
    assert ax.get_legend().get_window_extent().height < ax.figure.bbox.height


def test_three_objectives():
    points = {"a": RNG.uniform(0, 1, (5, 3)), "b": np.array([[0.5, 0.5, 0.5], [99, 0.5, 0.5]])}
    cloud = RNG.uniform(0, 1, (40, 3))
    ax = plot_front(points, true_front=cloud, reference=[1, 1, 1], title="three")
    assert ax.name == "3d"
    assert np.allclose(np.array(line(ax, "a").get_data_3d()).T, points["a"])
    assert np.allclose(np.array(line(ax, "b").get_data_3d()).T, points["b"][:1])
    assert np.allclose(np.array(line(ax, "true front").get_data_3d()).T, cloud)
    assert "b\n  1 of 2 off scale: f1 to 99" in legend_text(ax)
    assert "f3" in ax.get_zlabel()
    given = plt.figure().add_subplot(projection="3d")
    assert plot_front({"a": list(RNG.uniform(0, 1, (4, 5, 3)))}, spread=True, ax=given) is given


def test_a_shared_legend_names_each_rule_once():
    figure, axes = plt.subplots(1, 2, layout="constrained")
    plot_front(SERIES, ax=axes[0], legend=None)
    plot_front({**SERIES, "moco": [[80.0, 1.0], [0.5, 0.5]]}, true_front=FRONT, ax=axes[1], legend=None)
    legend = shared_legend(axes)
    assert legend.figure is figure
    assert [text.get_text() for text in legend.get_texts()] == [*SERIES, "true front", "moco", "beyond the axes"]
    assert axes[0].get_legend() is None
    with pytest.raises(ValueError, match="axes must hold panels"):
        shared_legend([plt.figure().add_subplot()])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"series": {}}, "series must name at least one rule"),
        ({"series": np.eye(2)}, "series must be a mapping"),
        ({"series": {"a": np.zeros((3, 4))}}, r"series\['a'\] must have shape .*found \(3, 4\).*columns"),
        ({"series": {"a": np.zeros((0, 2))}}, r"series\['a'\] must have at least one point"),
        ({"series": {"a": "text"}}, r"series\['a'\] must be numbers"),
        ({"series": {"a": np.eye(2), "b": np.eye(3)}}, "same number of columns"),
        ({"true_front": np.zeros((4, 3))}, r"true_front must have shape \(N, 2\); found \(4, 3\)"),
        ({"reference": 1.0}, "reference must have shape"),
        ({"labels": "ab"}, "labels must hold 2"),
        ({"labels": ["loss"]}, "labels must hold 2"),
        ({"connect": {"nobody"}}, r"connect must name rules of series; found \['nobody'\]"),
        ({"connect": "linear"}, "connect must be a set"),
        ({"spread": "box"}, "spread must be"),
        ({"series": {"a": [np.zeros((2, 2)), np.zeros((3, 2))]}, "spread": True}, r"series\['a'\].*\[2, 3\]"),
        ({"limits": "tight"}, "limits must be"),
        ({"limits": ((0, 1), (2, 1))}, "limits must hold 2 pairs"),
        ({"legend": "left"}, "legend must be one of"),
        ({"styles": rule_styles(["linear"])}, "styles must have an entry"),
        ({"series": {"a": np.eye(3)}, "connect": {"a"}}, "connect joins points by f1"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_front(**{"series": SERIES, **arguments})
    assert not plt.get_fignums()


def test_axes_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match="ax must be made with projection='3d'"):
        plot_front({"a": np.eye(3)}, ax=plt.figure().add_subplot())
