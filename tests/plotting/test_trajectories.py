"""Paths in the plane."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.text import Text

from mtopt.plotting import plot_trajectories, shared_legend
from mtopt.plotting.offscale import OFF_SCALE
from mtopt.plotting.trajectories import exit_point

T = np.linspace(0, 1, 20)[:, None]
PATHS = {
    "linear": [(1 - T) * np.array([-3.0, 2.0]), (1 - T) * np.array([2.0, 3.0])],
    "mgda": [(1 - T**2) * np.array([-3.0, 2.0]), (1 - T**2) * np.array([2.0, 3.0])],
}
SET = np.c_[np.linspace(-1, 1, 30), np.zeros(30)]
DIVERGED = np.array([2.0, 3.0]) + np.expm1(T * 9) * np.array([1.0, 0.1])


def bowl(x):
    return (x**2).sum(-1)


def lines(ax, label):
    return [artist.get_xydata() for artist in ax.lines if artist.get_label() == label]


def legend_text(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_draws_paths_starts_ends_and_set_over_contours():
    ax = plot_trajectories(PATHS, problem_levels=bowl, pareto_set=SET)
    for name, paths in PATHS.items():
        assert np.array_equal(lines(ax, name)[0], paths[0])
        assert np.array_equal(lines(ax, f"_{name}")[0], paths[1])
        assert np.array_equal(lines(ax, f"_ends of {name}")[0], [path[-1] for path in paths])
    assert np.array_equal(lines(ax, "Pareto set")[0], SET)
    assert np.array_equal(lines(ax, "start")[0], [[-3, 2], [2, 3]])
    assert len(ax.collections) == 2
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x1", "x2")
    assert legend_text(ax) == ["Pareto set", *PATHS, "start"]


def test_levels_are_called_once_with_a_plain_tensor_of_the_default_dtype():
    calls = []

    def levels(x):
        calls.append((x.dtype, x.requires_grad, x.ndim, x.shape[1], torch.is_grad_enabled()))
        return bowl(x)

    plot_trajectories(PATHS, problem_levels=levels)
    assert calls == [(torch.get_default_dtype(), False, 2, 2, False)]


@pytest.mark.parametrize("levels", [lambda x: torch.ones(len(x)), lambda x: torch.full((len(x),), torch.nan)])
def test_flat_or_undefined_levels_draw_no_contours(levels):
    assert not plot_trajectories(PATHS, problem_levels=levels).collections


def test_partly_undefined_levels_are_drawn_where_defined():
    assert plot_trajectories(PATHS, problem_levels=lambda x: x[:, 0].log() + x[:, 1] ** 2).collections


def test_each_loss_gets_contours_of_its_own():
    ax = plot_trajectories(
        PATHS, problem_levels=lambda x: torch.stack([bowl(x), bowl(x - 2).exp(), 0 * bowl(x)], dim=1)
    )
    assert len(ax.collections) == 2  # the flat one has none
    first, second = ax.collections
    assert first.get_edgecolor()[0].tolist() != second.get_edgecolor()[0].tolist()
    # spaced by quantiles: an exponential has as many contours as its logarithm
    assert len(first.levels) == len(second.levels)
    assert legend_text(ax)[:2] == ["contours of f1", "contours of f2"]


def test_without_levels_the_axes_are_objectives():
    ax = plot_trajectories(PATHS, pareto_set=SET[::-1], starts=[[1.0, 1.0]])
    assert "f1" in ax.get_xlabel()
    assert np.array_equal(lines(ax, "true front")[0], SET)
    assert np.array_equal(lines(ax, "start")[0], [[1, 1]])


def test_a_single_array_is_one_path_and_axes_are_used():
    _, ax = plt.subplots()
    assert plot_trajectories({"a": torch.tensor(PATHS["linear"][0])}, ax=ax) is ax
    assert np.array_equal(lines(ax, "a")[0], PATHS["linear"][0])


def test_a_path_that_diverges_leaves_the_picture_and_is_told():
    ax = plot_trajectories({**PATHS, "moco": [PATHS["linear"][0], DIVERGED]}, problem_levels=bowl)
    assert ax.get_xlim()[1] < 5
    assert sum(artist.get_gid() == OFF_SCALE for artist in ax.lines) == 1
    assert any(text.startswith("moco\n  1 of 2 off scale: x1 to 8.1e+03") for text in legend_text(ax))
    assert plot_trajectories({**PATHS, "moco": [DIVERGED]}, limits="all").get_xlim()[1] > 8000


def test_a_path_that_ends_at_nan_is_told():
    broken = PATHS["linear"][0].copy()
    broken[10:] = np.nan
    ax = plot_trajectories({**PATHS, "moco": [broken]})
    assert "moco\n  1 of 1 end at NaN or inf" in legend_text(ax)
    assert np.array_equal(lines(ax, "_ends of moco")[0], broken[9:10])


def test_exit_point():
    box = [(0.0, 1.0), (0.0, 1.0)]
    assert exit_point(np.array([[0.5, 0.5], [0.6, 0.6]]), box).shape == (0, 2)
    assert exit_point(np.array([[0.5, 0.5], [1.5, 0.7]]), box) == pytest.approx(np.array([[1.0, 0.6]]), abs=1e-5)
    assert exit_point(np.array([[0.5, 0.5], [0.5, -4.5]]), box) == pytest.approx(np.array([[0.5, 0.0]]), abs=1e-5)
    assert exit_point(np.array([[3.0, 3.0], [4.0, 4.0]]), box) == pytest.approx(np.array([[4.0, 4.0]]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trajectories": {"a": np.zeros((5, 3))}}, r"trajectories\['a'\].*\(5, 3\)"),
        ({"trajectories": {"a": [np.zeros((5, 2)), np.zeros((0, 2))]}}, r"trajectories\['a'\].*empty"),
        ({"pareto_set": np.zeros(5)}, r"pareto_set.*\(5,\)"),
        ({"starts": np.zeros((2, 3))}, r"starts.*\(2, 3\)"),
        ({"labels": ("x",)}, "labels must hold 2"),
        ({"legend": "top"}, "legend"),
        ({"limits": "some"}, "limits"),
        ({"senses": ("min", "up")}, "senses must hold"),
        ({"highlight": ["mgda", "nobody"]}, r"highlight must hold some of .*'mgda'.*nobody"),
        ({"highlight": "mgda"}, "highlight must hold"),
        ({"highlight": []}, "highlight must hold"),
        ({"targets": {"a": np.zeros((2, 3))}}, r"targets.*\(2, 3\)"),
        ({"problem_levels": lambda x: x.repeat(1, 3)}, r"problem_levels must return one value per row.*sum"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_trajectories(**{"trajectories": PATHS, **arguments})


def test_named_targets_are_marked_in_view_and_senses_labelled():
    targets = {"retrained": np.array([9.0, -4.0]), "before": np.array([[-5.0, 6.0]])}
    ax = plot_trajectories(PATHS, targets=targets, senses=("min", "max"), labels=("gap", "utility"))
    marks = {line.get_label(): line.get_xydata() for line in ax.lines}
    for name, point in targets.items():
        np.testing.assert_array_equal(marks[name], np.atleast_2d(point))
        (x, y), (low, high), (bottom, top) = np.atleast_2d(point)[0], ax.get_xlim(), ax.get_ylim()
        assert low < x < high
        assert bottom < y < top
    assert "gap, lower is better" in ax.get_xlabel()
    assert "utility, higher is better" in ax.get_ylabel()
    assert set(targets) <= {text.get_text() for text in ax.get_legend().get_texts()}
    plain = plot_trajectories(PATHS, senses=(None, "max"), labels=("gap", "utility"))
    assert plain.get_xlabel() == "gap"


MANY = {f"rule {n}": (1 - T) * np.array([3.0, n]) + T * np.array([0.1 * n, 0.2 * n]) for n in range(12)}


def boxes(ax):
    """The names written in the panel, with the room that each takes, in pixels."""
    ax.figure.draw_without_rendering()
    return {text.get_text(): Text.get_window_extent(text) for text in ax.texts if text.get_text()}


def test_of_many_paths_the_highlighted_are_named_in_place_and_the_others_grey():
    chosen = ["rule 3", "rule 7", "rule 9"]
    ax = plot_trajectories(MANY, highlight=chosen)
    assert sorted(boxes(ax)) == chosen
    assert legend_text(ax) == ["others", "start"]
    colors = {}
    for name, path in MANY.items():
        (line,) = (line for line in ax.lines if np.array_equal(line.get_xydata(), path))
        colors[name] = line.get_color()
    assert len({colors[name] for name in chosen}) == 3
    assert len({colors[name] for name in MANY if name not in chosen}) == 1
    assert {text.get_text(): text.get_color() for text in ax.texts if text.get_text()} == {n: colors[n] for n in chosen}


def test_names_cover_neither_one_another_nor_the_marks_and_stay_in_the_panel():
    ends = {f"contestant {n}": np.array([[3.0, 3.0], [0.02 * n, 0.03 * (n % 3)]]) for n in range(6)}
    _, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for ax in axes:
        plot_trajectories({**ends, "far": [[3.0, 3.0], [1.0, 2.0]]}, highlight=ends, legend=None, ax=ax)
    shared_legend(axes)  # takes room from the panels
    for ax in axes:
        found = boxes(ax)
        assert len(found) == 6
        frame = ax.get_window_extent()
        marks = ax.transData.transform([path[-1] for path in ends.values()])
        for name, box in found.items():
            assert not any(box.overlaps(other) for other_name, other in found.items() if other_name != name)
            assert not any(box.contains(*mark) for mark in marks)
            assert frame.contains(box.x0, box.y0)
            assert frame.contains(box.x1, box.y1)


def test_a_highlighted_path_that_leaves_the_picture_is_named_at_its_arrow():
    ax = plot_trajectories({**MANY, "far": DIVERGED}, highlight=["rule 3", "rule 5", "far"], starts=[[3.0, 3.0]])
    frame = ax.get_window_extent()
    box = boxes(ax)["far"]
    assert frame.contains(box.x0, box.y0)
    assert frame.contains(box.x1, box.y1)
