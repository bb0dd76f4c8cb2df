"""The shaded region is what the hypervolume measures."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mtopt.pareto import hypervolume
from mtopt.plotting import plot_front
from mtopt.plotting.dominated import boxes, outline

REFERENCE = np.array([1.1, 1.2])
SERIES = {"a": np.array([[0.2, 0.9], [0.5, 0.5], [0.6, 0.7], [2.0, 0.1]]), "b": np.array([[0.4, 0.4], [np.nan, 0.1]])}


def area(corners):
    x, y = corners.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def legend_text(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@given(arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(-1, 2)))
@settings(max_examples=60, deadline=None)
def test_its_area_is_the_hypervolume(points):
    corners = outline(points, REFERENCE)
    assert (area(corners) if len(corners) else 0.0) == pytest.approx(hypervolume(points, REFERENCE), abs=1e-12)


def test_the_boxes_have_the_volume_in_three_dimensions():
    rng = np.random.default_rng(0)
    points, reference = rng.integers(0, 6, (8, 3)).astype(float), np.full(3, 6.0)
    faces = boxes(points, reference)
    low, high = faces.min(axis=(1, 2)), faces.max(axis=(1, 2))
    assert (high == 6).all()
    cells = np.stack(np.meshgrid(*[np.arange(6) + 0.5] * 3), axis=-1).reshape(-1, 1, 3)
    covered = ((cells > low) & (cells < high)).all(axis=2).any(axis=1).sum()
    assert covered == pytest.approx(hypervolume(points, reference))


def test_the_figure_shades_each_rule_and_tells_its_hypervolume():
    ax = plot_front(SERIES, reference=REFERENCE, shade=True)
    for patch, points in zip(ax.patches, SERIES.values(), strict=True):
        finite = points[np.isfinite(points).all(axis=1)]
        assert area(patch.get_path().vertices[:-1]) == pytest.approx(hypervolume(finite, REFERENCE))
    assert legend_text(ax)[0] == "a\n  1 of 4 off scale: f1 to 2\n  hypervolume 0.51"
    assert "hypervolume 0.56" in legend_text(ax)[1]


def test_some_rules_are_shaded_and_others_are_not():
    ax = plot_front(SERIES, reference=REFERENCE, shade={"b"}, true_front=[[0, 1], [1, 0]])
    assert len(ax.patches) == 1
    assert [("hypervolume" in text) for text in legend_text(ax)] == [False, False, True, False]


def test_points_that_dominate_nothing_shade_nothing():
    ax = plot_front({"a": [[3.0, 0.0]]}, reference=REFERENCE, shade=True)
    assert not ax.patches
    assert "hypervolume 0" in legend_text(ax)[0]


def test_boxes_are_drawn_in_space():
    ax = plot_front({"a": np.eye(3)}, reference=[1.5, 1.5, 1.5], shade=True)
    assert len(ax.collections) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shade": True}, "needs one; pass reference="),
        ({"shade": {"c"}, "reference": REFERENCE}, r"shade must name rules of series; found \['c'\]"),
        ({"shade": "a", "reference": REFERENCE}, "shade must be True, False or a set"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_front(SERIES, **arguments)
    assert not plt.get_fignums()
