"""Objective vectors of any number of objectives: one vertical axis an objective, one line a point."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from mtopt._text import figure_text
from mtopt.plotting.arrays import Array, FloatArray, as_pieces, check_mapping, named_pieces
from mtopt.plotting.canvas import canvas
from mtopt.plotting.layout import LegendPlace, check_labels, check_legend, key
from mtopt.plotting.limits import Interval, Limits, full_interval, given_limits, robust_interval
from mtopt.plotting.offscale import offscale_note, with_note
from mtopt.plotting.rule_style import Style, styles_for
from mtopt.plotting.theme import INK

_MOST_OBJECTIVES = 64


def plot_parallel(
    series: Mapping[str, Array | Sequence[Array]],
    *,
    true_front: Array | Sequence[Array] | None = None,
    labels: Sequence[str] | None = None,
    limits: Limits = "robust",
    styles: Mapping[str, Style] | None = None,
    legend: LegendPlace = "outside",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws each point as a line across K parallel axes, one per objective; every objective is minimised.

    Every axis is scaled to its own range, whose ends are printed below and above it; down is better. Two lines that
    cross between neighbouring axes trade one objective for the other.

    Args:
        series: for each rule its points, (N, K), or a list of such arrays, one per seed; K >= 2.
        true_front: points of the true front, (M, K), or a list of them. The band from its smallest to its largest
            value of each objective is shaded. Default: not drawn.
        labels: the objectives' names, with units. Default: ``("f1", ..., "fK")``.
        limits: ``"robust"`` leaves out of an axis the few values that would squash all others, and says so in the
            legend; ``"all"`` shows everything; or one ``(low, high)`` an objective.
        styles: the rules' looks. Default: ``rule_styles``, a rule's own in every figure.
        legend: ``"outside"``, ``"inside"`` (outside all the same if it would cover data) or None.
        title: the title. Default: none.
        ax: where to draw; its x axis then counts the objectives from 0. Default: a new figure.

    Returns:
        The Axes; drawn values are shares of the ranges, from 0 (the smallest) to 1.

    Raises:
        ValueError: an argument has a wrong shape; the message names it.
    """
    check_mapping(series, "series")
    points = {
        name: np.concatenate(parts)
        for name, parts in named_pieces(series, "series", range(2, _MOST_OBJECTIVES + 1)).items()
    }
    count = next(iter(points.values())).shape[1]
    front = None if true_front is None else np.concatenate(as_pieces(true_front, "true_front", (count,)))
    labels = [f"f{k}" for k in range(1, count + 1)] if labels is None else labels
    check_labels(labels, count)
    check_legend(legend)
    looks = styles_for(points, styles)
    intervals = _intervals(limits, points, front)
    low, high = np.array(intervals).T
    width = np.where(high > low, high - low, 1.0)
    with canvas(ax, (max(4.3, 0.75 * count + 1.0), 3.3), title=title, legend=legend) as drawn:
        ax = drawn.ax
        drawn.title_pad = 20
        places = np.arange(count)
        if front is not None:
            ends = (np.nanquantile(front, (0, 1), axis=0) - low) / width
            ax.fill_between(places, ends[0], ends[1], color=to_rgba(INK, 0.1), linewidth=0, zorder=1)
            drawn.keys.append(Patch(facecolor=to_rgba(INK, 0.1), label="range of the true front"))
        for name, values in points.items():
            line: dict[str, Any] = {"color": looks[name].color, "linestyle": looks[name].linestyle, "linewidth": 1.1}
            shares = (values - low) / width
            faint = float(np.clip(12 / len(values), 0.25, 0.9))
            for number, row in enumerate(shares):
                label = figure_text(name) if number == 0 else f"_{name}"
                ax.plot(places, row, alpha=faint, zorder=3, label=label, **line)
            drawn.keys.append(key(with_note(figure_text(name), offscale_note(values, intervals, labels)), **line))
        _dress(ax, intervals, labels)
        drawn.data = _drawn(points, low, width)
    return ax


def _intervals(limits: Limits, points: Mapping[str, FloatArray], front: FloatArray | None) -> list[Interval]:
    everything = [*points.values(), *([] if front is None else [front])]
    count = everything[0].shape[1]
    chosen = given_limits(limits, count)
    if chosen is not None:
        return chosen
    if limits == "all":
        every = np.concatenate(everything)
        return [full_interval(every[:, column]) for column in range(count)]
    return [
        robust_interval([p[:, column] for p in points.values()], None if front is None else front[:, column])
        for column in range(count)
    ]


def _dress(ax: Axes, intervals: Sequence[Interval], labels: Sequence[str]) -> None:
    """The K axes, each with its name below and the ends of its range."""
    for place in range(len(labels)):
        ax.axvline(place, color="#8A8A8A", linewidth=0.8, zorder=2)
    ends = [tuple(_number(value, interval) for value in interval) for interval in intervals]
    ax.set_xticks(range(len(labels)), labels=[f"{low}\n{label}" for (low, _), label in zip(ends, labels, strict=True)])
    ax.set_yticks([])
    for place, (_, high) in enumerate(ends):
        ax.annotate(
            high, (place, 1), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=8, annotation_clip=False
        )
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.15, len(labels) - 0.85)
    ax.set_ylim(0, 1)
    ax.set_ylabel("← lower is better")
    ax.grid(visible=False)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)


def _number(value: float, interval: Interval) -> str:
    # what is nothing beside the axis' range is zero, not 1e-17
    return f"{0.0 if abs(value) < 1e-9 * (interval[1] - interval[0]) else value:.3g}"


def _drawn(points: Mapping[str, FloatArray], low: FloatArray, width: FloatArray) -> FloatArray:
    """Every corner of every line, (N, 2)."""
    shares = (np.concatenate(list(points.values())) - low) / width
    return np.stack(np.broadcast_arrays(np.arange(shares.shape[1], dtype=np.float64), shares), axis=-1).reshape(-1, 2)
