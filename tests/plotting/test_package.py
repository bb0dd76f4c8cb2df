"""Lazy loading, the style context, and the looks of the rules."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest

from mtopt import plotting
from mtopt.plotting.rule_style import COLORS
from mtopt.plotting.theme import INK

# Machado, Oliveira and Fernandes (2009): full protanopia, deuteranopia and tritanopia, on linear RGB.
SIGHT = {
    "full": np.eye(3),
    "protan": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deutan": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritan": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear_rgb(color):
    value = np.array(mpl.colors.to_rgb(color))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193, 0.1192, 0.9503]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_every_public_name_loads():
    for name in plotting.__all__:
        assert callable(getattr(plotting, name))
    assert sorted(plotting._HOME) == sorted(plotting.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="plot_nothing"):
        plotting.plot_nothing  # noqa: B018


@pytest.mark.parametrize("sight", SIGHT)
def test_colors_differ_with_every_kind_of_sight(sight):
    seen = [lab(SIGHT[sight] @ linear_rgb(color)) for color in (*COLORS, INK)]
    closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    assert closest > 15


def test_colors_stand_out_from_white():
    luminance = [np.array([0.2126, 0.7152, 0.0722]) @ linear_rgb(color) for color in COLORS]
    assert all(1.05 / (value + 0.05) > 2 for value in luminance)


def test_styles_differ_with_and_without_color():
    styles = list(plotting.rule_styles([f"rule {i}" for i in range(56)]).values())
    for pair in (("color", "marker"), ("color", "linestyle"), ("marker", "linestyle")):
        assert len({tuple(getattr(style, field) for field in pair) for style in styles}) == 56
    assert len({style.color for style in styles[:8]}) == 8
    assert len({style.marker for style in styles[:13]}) == 13


def test_styles_follow_the_position_only():
    names = ["linear", "mgda", "pcgrad"]
    assert plotting.rule_styles(names) == plotting.rule_styles(names)
    assert list(plotting.rule_styles(names)) == names
    assert plotting.rule_styles([*names, "famo"])["pcgrad"] == plotting.rule_styles(names)["pcgrad"]


def test_every_style_is_known_to_matplotlib():
    for style in plotting.rule_styles([f"rule {i}" for i in range(56)]).values():
        mpl.lines.Line2D([], [], color=style.color, marker=style.marker, linestyle=style.linestyle)


def test_rule_styles_refuses_repeats_and_a_string():
    with pytest.raises(ValueError, match=r"names.*\['a'\].*remove"):
        plotting.rule_styles(["a", "b", "a"])
    with pytest.raises(ValueError, match=r"names.*'linear'.*pass"):
        plotting.rule_styles("linear")


def test_style_restores_the_settings_and_an_error_within_leaves_them():
    before = dict(mpl.rcParams)
    with plotting.style({"font.size": 20}):
        assert mpl.rcParams["font.size"] == 20
        assert mpl.rcParams["svg.fonttype"] == "none"
        with pytest.raises(ValueError, match="means"):
            plotting.plot_ranking({})
        assert mpl.rcParams["font.size"] == 20
    assert dict(mpl.rcParams) == before


def test_an_outer_style_wins_over_that_of_a_figure():
    with plotting.style({"axes.labelsize": 17}):
        ax = plotting.plot_front({"a": [[0.0, 1.0]]})
    assert ax.xaxis.label.get_size() == 17
    assert plotting.plot_front({"a": [[0.0, 1.0]]}).xaxis.label.get_size() == 9


def test_no_figure_function_changes_the_settings():
    before = dict(mpl.rcParams)
    plotting.plot_front({"a": np.eye(2)})
    plotting.plot_trajectories({"a": np.eye(2)})
    ax = plotting.plot_curves({"a": [([0, 1], [1, 2])]})
    plotting.plot_ranking({"a": 1.0})
    plotting.plot_parallel({"a": np.eye(4)})
    plotting.plot_attainment({"a": [np.eye(2), np.eye(2)]})
    plotting.plot_conflicts({"a, b": [0.5, -0.5]})
    plotting.plot_weights({"a": [0.5, 0.4]})
    plotting.plot_step_geometry(np.eye(2), {"a": [1.0, 1.0]})
    plotting.to_svg(ax.figure)
    assert dict(mpl.rcParams) == before
