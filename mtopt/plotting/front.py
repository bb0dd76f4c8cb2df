"""Where the rules end in objective space, against the true front."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from mtopt._text import figure_text
from mtopt.plotting.arrays import Array, FloatArray, as_pieces, as_points, deviation_over_seeds, named_pieces
from mtopt.plotting.canvas import canvas
from mtopt.plotting.dominated import Shade, draw_regions, shaded_names
from mtopt.plotting.front3d import draw_front3d
from mtopt.plotting.front_scene import FrontScene
from mtopt.plotting.layout import (
    LegendPlace,
    check_labels,
    check_legend,
    extended,
    key,
    label_objectives,
)
from mtopt.plotting.limits import Interval, Limits, limits_of_points
from mtopt.plotting.marks import REFERENCE, draw_true_front, marker_look
from mtopt.plotting.offscale import draw_offscale, offscale_note, with_note
from mtopt.plotting.pieces import sorted_line
from mtopt.plotting.rule_style import Style, styles_for
from mtopt.plotting.theme import INK

Spread = bool | Literal["ellipse", "bars"]


def plot_front(
    series: Mapping[str, Array | Sequence[Array]],
    *,
    true_front: Array | Sequence[Array] | None = None,
    reference: Array | None = None,
    shade: Shade = False,
    labels: Sequence[str] | None = None,
    spread: Spread = False,
    connect: Collection[str] = (),
    limits: Limits = "robust",
    styles: Mapping[str, Style] | None = None,
    legend: LegendPlace = "outside",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws each rule's points in objective space; every objective is minimised.

    Points with three columns are drawn in three dimensions (``projection="3d"``).

    Args:
        series: for each rule its points, (N, 2) or (N, 3), or a list of such arrays, one per seed; a seed may be a
            single (2,) point.
        true_front: points of the true front, (M, 2) or (M, 3), in any order, or a list of its disconnected
            pieces. In two dimensions a line, broken where the sampled front jumps. Default: not drawn.
        reference: the reference point of the hypervolume, (2,) or (3,). Default: not drawn.
        shade: shade the region that the points drawn dominate up to the reference point, whose area is their
            hypervolume, and write that in the legend; in three dimensions the boxes whose union it is. True: of every
            rule; or the names of some. Of the points of all seeds together, or of the means with ``spread``.
            Default: False.
        labels: the axis labels. Default: ``("f1", "f2")``, and ``"f3"`` in three dimensions.
        spread: draw the seeds faintly, and the mean over seeds of each rule's i-th point with an ellipse of one
            standard deviation (``True`` or ``"ellipse"``; bars with two seeds and in three dimensions) or with
            bars (``"bars"``). Default: every point alike.
        connect: the rules whose points (means, with ``spread``) a line joins, by increasing f1: a front traced by
            static scalarization, say. Two dimensions only. Default: none.
        limits: ``"robust"`` leaves out of view the few points that would squash all others, shows them at the
            border with an arrow and says so in the legend; ``"all"`` shows everything; or one ``(low, high)`` an
            axis.
        styles: the rules' looks. Default: ``rule_styles``, a rule's own in every figure.
        legend: ``"outside"``, ``"inside"`` (outside all the same if it would cover data) or None.
        title: the title. Default: none.
        ax: where to draw. Default: a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: an argument has a wrong shape or an unknown name; the message names it.
    """
    points = named_pieces(series, "series", (2, 3))
    dimensions = next(iter(points.values()))[0].shape[1]
    front = [] if true_front is None else as_pieces(true_front, "true_front", (dimensions,))
    anchor = None if reference is None else as_points(reference, "reference", (dimensions,))
    labels = ("f1", "f2", "f3")[:dimensions] if labels is None else labels
    check_labels(labels, dimensions)
    check_legend(legend)
    looks = styles_for(points, styles)
    _check_options(points, spread, connect, dimensions, ax)
    shaded = shaded_names(shade, points, anchor)
    centres = {name: (np.stack(p).mean(axis=0) if spread else np.concatenate(p)) for name, p in points.items()}
    intervals = limits_of_points(limits, points, centres, front, anchor)
    scene = FrontScene(points, centres, front, anchor, labels, looks)
    size, box = ((4.3, 3.5), None) if dimensions == 2 else ((4.6, 3.8), "3d")
    place = legend if dimensions == 2 or legend is None else "outside"
    with canvas(ax, size, title=title, legend=place, projection=box) as drawn:
        ax = drawn.ax
        if dimensions == 3:
            handles = draw_front3d(ax, scene, intervals, spread=bool(spread))
        else:
            intervals = extended(ax, intervals)
            handles = _draw_front(ax, scene, intervals, spread, connect)
            drawn.show(intervals)
            label_objectives(ax, labels)
        if anchor is not None:
            keys = dict(zip(points, handles[len(handles) - len(points) - 1 :], strict=False))  # the reference is last
            draw_regions(
                ax, {name: centres[name] for name in points if name in shaded}, anchor[0], intervals, looks, keys
            )
        drawn.keys += handles
        drawn.heading = _spread_heading(points, spread, dimensions)
        drawn.data = np.concatenate([*centres.values(), *front, *([] if anchor is None else [anchor])])[:, :2]
    return ax


def _check_options(
    points: Mapping[str, Sequence[FloatArray]],
    spread: Spread,
    connect: Collection[str],
    dimensions: int,
    ax: Axes | None,
) -> None:
    if spread not in (False, True, "ellipse", "bars"):
        raise ValueError(f"spread must be False, True, 'ellipse' or 'bars'; found {spread!r}")
    if isinstance(connect, str):
        raise ValueError(f"connect must be a set of rule names; found the string {connect!r}: pass {{{connect!r}}}")
    unknown = sorted(set(connect) - set(points))
    if unknown:
        raise ValueError(f"connect must name rules of series; found {unknown}, while series has {list(points)}")
    if connect and dimensions == 3:
        raise ValueError("connect joins points by f1 and needs two objectives; found three: leave it empty")
    if ax is not None and (ax.name == "3d") != (dimensions == 3):
        need = "made with projection='3d'" if dimensions == 3 else "two-dimensional"
        raise ValueError(f"ax must be {need} for points with {dimensions} columns; found a {ax.name!r} projection")
    for name, parts in points.items():
        if spread and len({len(part) for part in parts}) > 1:
            raise ValueError(
                f"series[{name!r}] must have the same number of points in every seed to be averaged; found "
                f"{[len(part) for part in parts]}: pass spread=False or points of the same preferences"
            )


def _draw_front(
    ax: Axes, scene: FrontScene, intervals: Sequence[Interval], spread: Spread, connect: Collection[str]
) -> list[Line2D]:
    handles = draw_true_front(ax, scene.front)
    for name, centre in scene.centres.items():
        look = scene.looks[name]
        if spread:
            _draw_spread(ax, np.stack(scene.points[name]), centre, look, spread)
        line_look = look.linestyle if name in connect else "none"
        if name in connect:
            joined = sorted_line(centre)
            ax.plot(joined[:, 0], joined[:, 1], color=look.color, linestyle=look.linestyle, linewidth=1.1, zorder=2.5)
        marks = marker_look(look, small=bool(spread))
        ax.plot(centre[:, 0], centre[:, 1], linestyle="none", zorder=3, label=figure_text(name), **marks)
        every = np.concatenate(scene.points[name])  # with spread, seeds may be out of view while their mean is not
        draw_offscale(ax, every, intervals, look)
        label = with_note(figure_text(name), offscale_note(every, intervals, scene.labels))
        handles.append(key(label, color=look.color, linestyle=line_look, linewidth=1.1, **marks))
    if scene.reference is not None:
        cross = Style(INK, "+", "-")
        ax.plot(*scene.reference.T, zorder=3, label="reference point", **REFERENCE)
        draw_offscale(ax, scene.reference, intervals, cross)
        note = offscale_note(scene.reference, intervals, scene.labels)
        handles.append(key(with_note("reference point", note), **REFERENCE))
    return handles


def _draw_spread(ax: Axes, seeds: FloatArray, centre: FloatArray, look: Style, spread: Spread) -> None:
    """The (S, N, 2) seeds faintly, and an ellipse or bars of one standard deviation at the (N, 2) centre."""
    flat = seeds.reshape(-1, 2)
    ax.plot(
        flat[:, 0],
        flat[:, 1],
        linestyle="none",
        marker=look.marker,
        markersize=2.6,
        markerfacecolor=to_rgba(look.color, 0.5),
        markeredgecolor="none",
        zorder=2.2,
        label="_seeds",
    )
    if len(seeds) < 2:
        return
    if spread == "bars" or len(seeds) == 2:
        deviation = deviation_over_seeds(seeds)
        ax.errorbar(
            centre[:, 0],
            centre[:, 1],
            xerr=deviation[:, 0],
            yerr=deviation[:, 1],
            fmt="none",
            ecolor=look.color,
            elinewidth=1.0,
            zorder=2.6,
        )
        return
    for i in np.flatnonzero(np.isfinite(seeds).all(axis=(0, 2))):
        variances, axes = np.linalg.eigh(np.cov(seeds[:, i].T))
        widths = 2 * np.sqrt(np.maximum(variances, 0))
        angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
        ellipse = Ellipse(
            (float(centre[i, 0]), float(centre[i, 1])),
            float(widths[1]),
            float(widths[0]),
            angle=angle,
            facecolor=to_rgba(look.color, 0.16),
            edgecolor=to_rgba(look.color, 0.8),
            linewidth=0.8,
            zorder=2.1,
        )
        ax.add_patch(ellipse)


def _spread_heading(points: Mapping[str, Sequence[FloatArray]], spread: Spread, dimensions: int) -> str | None:
    if not spread:
        return None
    counts = sorted({len(parts) for parts in points.values()})
    seeds = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    shape = "bars" if spread == "bars" or dimensions == 3 or counts[-1] == 2 else "ellipse"
    return f"mean over {seeds} seeds,\n{shape}: ±1 s.d." if counts[-1] > 1 else None
