"""Lazy loading, the style context, and the looks of the rules."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest

import mtopt
from mtopt import plotting
from mtopt.combiners import combiner_class
from mtopt.plotting.rule_style import _RULES, COLORS, NEUTRAL
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
    seen = [lab(SIGHT[sight] @ linear_rgb(color)) for color in (*COLORS, NEUTRAL, INK)]
    closest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    assert closest > 15


def test_colors_stand_out_from_white():
    luminance = [np.array([0.2126, 0.7152, 0.0722]) @ linear_rgb(color) for color in (*COLORS, NEUTRAL)]
    assert all(1.05 / (value + 0.05) > 2 for value in luminance)


def pairs_of(styles):
    """For each pair of attributes, how many of the looks differ in it."""
    pairs = (("color", "marker"), ("color", "linestyle"), ("marker", "linestyle"))
    return [len({tuple(getattr(style, field) for field in pair) for style in styles}) for pair in pairs]


def own_rules():
    """Without those that other tests register."""
    return [name for name in mtopt.list_combiners() if combiner_class(name).__module__.startswith("mtopt.")]


def test_no_two_rules_look_alike_with_or_without_color():
    looks = plotting.rule_styles(own_rules())
    assert len(looks) == len(own_rules()) > 50
    assert pairs_of(looks.values()) == [len(looks)] * 3


def test_common_rules_have_colors_of_their_own():
    common = ["linear", "mgda", "pcgrad", "cagrad", "nash_mtl", "imtl_g", "upgrad", "ngdiff", "stch"]
    looks = plotting.rule_styles(common)
    assert len({look.color for look in looks.values()}) == len(common)
    assert looks["linear"].color == NEUTRAL
    assert NEUTRAL not in COLORS
    assert [name for name, look in plotting.rule_styles(own_rules()).items() if look.color == NEUTRAL] == ["linear"]


def test_every_rule_has_its_place_in_the_table():
    # a rule without one would look as its name has it, which may be as another does
    assert set(own_rules()) == set(_RULES)
    assert len(_RULES) == len(set(_RULES))


def test_a_rule_looks_the_same_whatever_is_beside_it():
    names = [*own_rules(), "GDiff(0.9)", "a rule of mine"]
    for name in names:
        alone = plotting.rule_styles([name])[name]
        for companions in (["linear", "mgda"], names[::-1], ["stch", "b", "another", "a"]):
            beside = plotting.rule_styles([name, *(other for other in companions if other != name)])[name]
            assert beside.color == alone.color
            assert beside == alone or name not in own_rules()


def test_figures_with_other_companions_draw_a_rule_alike():
    points = np.array([[0.2, 0.8], [0.6, 0.4]])
    (one, two) = (plotting.plot_front(dict.fromkeys(names, points)) for names in (["mgda", "stch"], ["x", "stch"]))
    found = [next(line for line in ax.lines if line.get_label() == "stch") for ax in (one, two)]
    assert found[0].get_markeredgecolor() == found[1].get_markeredgecolor()
    assert found[0].get_marker() == found[1].get_marker()


def test_aliases_share_the_look_of_their_rule():
    looks = plotting.rule_styles(["linear", "ew", "mean", "ls", "mgda"])
    assert looks["linear"] == looks["ew"] == looks["mean"] == looks["ls"] != looks["mgda"]


def test_unknown_names_are_told_apart_whatever_their_order():
    names = [f"contestant {number}" for number in range(60)]
    looks = plotting.rule_styles([*names, *own_rules()])
    assert looks == plotting.rule_styles([*own_rules(), *names[::-1]])
    assert len(set(looks.values())) == len(looks)


def test_few_unknown_names_of_one_color_differ_in_marker_and_line():
    names = [f"contestant {number}" for number in range(200)]
    color = plotting.rule_styles(["mgda"])["mgda"].color
    same = [name for name in names if plotting.rule_styles([name])[name].color == color][:6]
    looks = plotting.rule_styles(["mgda", *same])
    assert len(looks) == 7
    assert pairs_of(looks.values()) == [7] * 3


def test_looks_of_series_follow_the_position_only():
    looks = plotting.series_styles([f"loss {number}" for number in range(56)])
    assert pairs_of(looks.values()) == [56] * 3
    assert len({look.color for look in list(looks.values())[:8]}) == 8
    assert list(looks.values())[:3] == list(plotting.series_styles(["mgda", "linear", "forget"]).values())


def test_every_style_is_known_to_matplotlib():
    for style in plotting.series_styles([f"loss {number}" for number in range(56)]).values():
        mpl.lines.Line2D([], [], color=style.color, marker=style.marker, linestyle=style.linestyle)


@pytest.mark.parametrize("assign", [plotting.rule_styles, plotting.series_styles])
def test_repeats_and_a_string_are_refused(assign):
    with pytest.raises(ValueError, match=r"names.*\['a'\].*remove"):
        assign(["a", "b", "a"])
    with pytest.raises(ValueError, match=r"names.*'linear'.*pass"):
        assign("linear")


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
