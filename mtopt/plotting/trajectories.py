"""The paths of the rules, over the contours of a two-parameter problem or in objective space."""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain, cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from mtopt._text import figure_text
from mtopt.plotting.arrays import Array, FloatArray, as_pieces, as_points, named_pieces
from mtopt.plotting.canvas import canvas
from mtopt.plotting.contours import Levels, draw_contours
from mtopt.plotting.direct_labels import settle_names, write_names
from mtopt.plotting.layout import (
    LegendPlace,
    Sense,
    check_labels,
    check_legend,
    check_senses,
    extended,
    key,
    label_objectives,
    root_figure,
)
from mtopt.plotting.limits import Interval, Limits, full_interval, given_limits, padded, robust_interval
from mtopt.plotting.marks import marker_look
from mtopt.plotting.offscale import border_places, draw_offscale, in_view, offscale_note, with_note
from mtopt.plotting.pieces import broken_line, front_line
from mtopt.plotting.rule_style import Style, colors_apart, styles_for
from mtopt.plotting.theme import INK

TARGET = "#FFD166"
"""The fill of named points to compare with: unlike any rule's colour."""

_BEHIND = "#BDBDBD"
"""The grey of paths that are not highlighted: fainter than that of static scalarization."""

_START: dict[str, Any] = {
    "marker": "o",
    "markersize": 4.5,
    "markerfacecolor": "white",
    "markeredgecolor": INK,
    "linestyle": "none",
}


def plot_trajectories(
    trajectories: Mapping[str, Array | Sequence[Array]],
    *,
    problem_levels: Levels | None = None,
    pareto_set: Array | Sequence[Array] | None = None,
    starts: Array | None = None,
    targets: Mapping[str, Array] | None = None,
    limits: Limits = "robust",
    labels: Sequence[str] | None = None,
    senses: Sequence[Sense] = ("min", "min"),
    highlight: Collection[str] | None = None,
    styles: Mapping[str, Style] | None = None,
    legend: LegendPlace = "outside",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws each rule's paths in the plane: of the parameters with ``problem_levels``, else of the objectives.

    A path that diverges leaves the picture at its border, with an arrow, and the legend says how far it went.

    Args:
        trajectories: for each rule one (T, 2) array, or a list of them, one a start; T may differ.
        problem_levels: called once with an (M, 2) tensor of parameters, without grad and of the default dtype;
            returns M values, of which contours are drawn: the sum of the losses, say; or (M, K), with K <= 4, and
            each loss gets contours of its own colour. Contours are spaced by quantiles, so that values over several
            decades show. Default: none, and the axes are objectives.
        pareto_set: the Pareto set in parameter space, (N, 2) in order along it; or the front, in any order, in
            objective space; or a list of disconnected pieces. Drawn as a thick line. Default: not drawn.
        starts: (S, 2) starting points to mark. Default: the first point of every path.
        targets: named points to compare with, (2,) or (N, 2): a model trained otherwise, say. Always in view. Default:
            none.
        limits: ``"robust"`` shows the starts, the Pareto set and every path that stays near them, and lets the
            others run out; ``"all"`` shows everything; or ``((low, high), (low, high))``.
        labels: the axis labels. Default: ``("x1", "x2")`` over contours and ``("f1", "f2")`` without.
        senses: ``"min"``, ``"max"`` or None (neither) of each axis in objective space, which its label says. Default:
            both minimised.
        highlight: the rules to tell apart where there are many: each has a colour of its own and its name at the end of
            its first path; all others are thin grey lines, which the limits may leave out of view. Default: all rules,
            named in the legend.
        styles: the rules' looks. Default: ``rule_styles``, a rule's own in every figure.
        legend: ``"outside"``, ``"inside"`` (outside all the same if it would cover data) or None.
        title: the title. Default: none.
        ax: where to draw. Default: a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: an argument has a wrong shape, ``highlight`` names what is not drawn, or ``problem_levels`` returns
            other than M values or (M, K).
    """
    paths = named_pieces(trajectories, "trajectories", (2,))
    for name, parts in paths.items():
        if not all(len(path) for path in parts):
            raise ValueError(f"trajectories[{name!r}] must hold paths of at least one point; found an empty one")
    target = [] if pareto_set is None else as_pieces(pareto_set, "pareto_set", (2,))
    every_path = [path for parts in paths.values() for path in parts]
    begin = np.stack([path[0] for path in every_path]) if starts is None else as_points(starts, "starts", (2,))
    begin = np.unique(begin[np.isfinite(begin).all(axis=1)], axis=0)
    in_parameters = problem_levels is not None
    if labels is None:
        labels = ("x1", "x2") if in_parameters else ("f1", "f2")
    check_labels(labels, 2)
    check_senses(senses)
    marked = {name: as_points(point, f"targets[{name!r}]", (2,)) for name, point in (targets or {}).items()}
    check_legend(legend)
    looks = styles_for(paths, styles)
    front, behind = _apart(paths, highlight)
    if highlight is not None:
        looks = colors_apart({name: looks[name] for name in front})
    intervals = limits_of_paths(limits, front, [begin, *target, *marked.values()])
    with canvas(ax, (4.3, 3.5), title=title, legend=legend) as drawn:
        ax = drawn.ax
        intervals = extended(ax, intervals)
        surfaces = [] if problem_levels is None else draw_contours(ax, problem_levels, intervals)
        drawn.keys += [*surfaces, *_draw_target(ax, target, in_parameters)]
        drawn.keys += _draw_behind(ax, behind)
        handles = _draw_paths(ax, front, intervals, labels, looks, in_legend=highlight is None)
        drawn.keys += handles if highlight is None else []
        if len(begin):
            ax.plot(begin[:, 0], begin[:, 1], zorder=4, label="start", **_START)
            drawn.keys.append(key("start", **_START))
        drawn.show(intervals)
        if in_parameters:
            ax.grid(visible=False)
            ax.set_xlabel(labels[0])
            ax.set_ylabel(labels[1])
        else:
            label_objectives(ax, labels, senses)
        drawn.keys += _draw_marked(ax, marked)
        drawn.data = np.concatenate([*every_path, *target, *marked.values()])
        if highlight is not None:
            write_names(ax, _mark_of_each(front, intervals), looks)
    if highlight is not None:
        root_figure(ax).draw_without_rendering()
        settle_names(ax)
    return ax


def _apart(
    paths: Mapping[str, list[FloatArray]], highlight: Collection[str] | None
) -> tuple[Mapping[str, list[FloatArray]], list[FloatArray]]:
    """The paths to tell apart, and those behind them."""
    if highlight is None:
        return paths, []
    front = {name: parts for name, parts in paths.items() if name in highlight}
    if isinstance(highlight, str) or not highlight or len(front) < len(set(highlight)):
        raise ValueError(f"highlight must hold some of the rules that are drawn, {list(paths)}; found {highlight!r}")
    return front, [path for name, parts in paths.items() if name not in front for path in parts]


def _draw_behind(ax: Axes, paths: Sequence[FloatArray]) -> list[Line2D]:
    look: dict[str, Any] = {"color": _BEHIND, "linewidth": 0.9}
    for number, path in enumerate(paths):
        ax.plot(path[:, 0], path[:, 1], zorder=2.2, label="others" if number == 0 else "_other", **look)
    return [key("others", **look)] if paths else []


def _mark_of_each(paths: Mapping[str, Sequence[FloatArray]], intervals: Sequence[Interval]) -> dict[str, FloatArray]:
    """Where the first path of each rule ends: in view, or where its arrow stands."""
    low, high = np.array(intervals, dtype=np.float64).T
    marks = {}
    for name, parts in paths.items():
        path = parts[0][np.isfinite(parts[0]).all(axis=1)]
        if len(path):
            exits = exit_point(path, intervals)
            marks[name] = low + border_places(exits, intervals)[0] * (high - low) if len(exits) else path[-1]
    return marks


def limits_of_paths(
    limits: Limits, paths: Mapping[str, Sequence[FloatArray]], fixed: Sequence[FloatArray]
) -> list[Interval]:
    """The x and y intervals, for paths and points that are always in view."""
    chosen = given_limits(limits, 2)
    if chosen is not None:
        return chosen
    always = np.concatenate(fixed)
    if limits == "all":
        every = np.concatenate([always, *(path for parts in paths.values() for path in parts)])
        return [padded(full_interval(every[:, i])) for i in range(2)]
    # A path that diverges grows step by step, without a gap that would set its points apart from the others:
    # where it ends tells, and then none of it counts.
    ends = [np.stack([path[-1] for path in parts]) for parts in paths.values()]
    near = [padded(robust_interval([end[:, i] for end in ends], always[:, i])) for i in range(2)]
    kept = [[path for path in parts if in_view(path[-1:], near)[0]] for parts in paths.values()]
    every = np.concatenate(list(chain.from_iterable(paths.values())))
    groups = [np.concatenate(parts) for parts in kept if parts] or [every]
    finite = every[np.isfinite(every).all(axis=1)]
    return [padded(robust_interval([group[:, i] for group in groups], always[:, i]), finite[:, i]) for i in range(2)]


def _draw_target(ax: Axes, pieces: Sequence[FloatArray], in_parameters: bool) -> list[Line2D]:
    if not pieces:
        return []
    if not in_parameters:
        line, label = front_line(pieces), "true front"
    elif len(pieces) == 1:
        line, label = broken_line(pieces[0]), "Pareto set"
    else:
        gap = np.full((1, 2), np.nan)
        line, label = np.concatenate([row for piece in pieces for row in (piece, gap)])[:-1], "Pareto set"
    # A set of one point has no line to show.
    marker = "o" if len(line) == 1 else "none"
    return ax.plot(
        line[:, 0], line[:, 1], color=INK, alpha=0.3, linewidth=6, marker=marker, zorder=1.8, label=label,
        solid_capstyle="round",
    )  # fmt: skip


def _draw_marked(ax: Axes, marked: Mapping[str, FloatArray]) -> list[Line2D]:
    handles = []
    for (name, points), marker in zip(marked.items(), cycle("*PXD")):
        look: dict[str, Any] = {
            "marker": marker,
            "markersize": 12 if marker == "*" else 8,
            "markerfacecolor": TARGET,
            "markeredgecolor": INK,
            "linestyle": "none",
        }
        ax.plot(points[:, 0], points[:, 1], zorder=6, label=figure_text(name), **look)
        handles.append(key(figure_text(name), **look))
    return handles


def exit_point(path: FloatArray, intervals: Sequence[Interval]) -> FloatArray:
    """Where a finite (T, 2) path that ends out of view leaves it for good: (1, 2), or (0, 2) if it ends in view."""
    inside = in_view(path, intervals)
    if not len(path) or inside[-1]:
        return np.empty((0, 2))
    if not inside.any():
        return path[-1:]
    last = int(np.flatnonzero(inside)[-1])
    here, step = path[last], path[last + 1] - path[last]
    low, high = np.array(intervals, dtype=np.float64).T
    room = np.where(step > 0, high - here, low - here)
    shares = np.divide(room, step, out=np.full(2, np.inf), where=step != 0)
    crossed = shares == shares.min()
    # A hair beyond the border that is crossed, on the border's inner side along the other axis.
    edge = np.where(step > 0, high, low) + 1e-6 * np.sign(step) * (high - low)
    place: FloatArray = np.where(crossed, edge, np.clip(here + shares.min() * step, low, high))
    return place[None]


def _draw_paths(
    ax: Axes,
    paths: Mapping[str, Sequence[FloatArray]],
    intervals: Sequence[Interval],
    labels: Sequence[str],
    looks: Mapping[str, Style],
    *,
    in_legend: bool,
) -> list[Line2D]:
    handles = []
    for name, parts in paths.items():
        look = looks[name]
        line: dict[str, Any] = {"color": look.color, "linestyle": look.linestyle, "linewidth": 1.3}
        marks = {
            **marker_look(look, small=True),
            "markerfacecolor": to_rgba(look.color, 0.75),
            "markeredgecolor": "white",
        }
        marks["markeredgewidth"] = 0.7
        for number, path in enumerate(parts):
            label = figure_text(name) if in_legend and number == 0 else f"_{name}"
            ax.plot(path[:, 0], path[:, 1], zorder=3, label=label, **line)
        finite = [path[np.isfinite(path).all(axis=1)] for path in parts]
        ends = np.array([path[-1] for path in finite if len(path)]).reshape(-1, 2)
        ax.plot(ends[:, 0], ends[:, 1], linestyle="none", zorder=5, label=f"_ends of {name}", **marks)
        exits = np.concatenate([exit_point(path, intervals) for path in finite])
        draw_offscale(ax, exits, intervals, look)
        lost = sum(1 for path in parts if not np.isfinite(path[-1]).all())
        note = offscale_note(ends, intervals, labels)
        if lost:
            note = f"{note}\n{lost} of {len(parts)} end at NaN or inf".strip()
        handles.append(key(with_note(figure_text(name), note), **line, **marks))
    return handles
