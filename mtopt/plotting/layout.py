"""Axes to draw on, their labels, and legends that never cover data."""

from collections.abc import Iterable, Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D

from mtopt.plotting.arrays import FloatArray
from mtopt.plotting.direct_labels import settle_names
from mtopt.plotting.limits import Interval
from mtopt.plotting.offscale import OFF_SCALE
from mtopt.plotting.theme import FAINT, INK, style

LegendPlace = Literal["outside", "inside"] | None
Sense = Literal["min", "max"] | None
LEGEND_PLACES = ("outside", "inside", None)


def new_axes(size: tuple[float, float], *, projection: str | None = None) -> Axes:
    """Axes on a new pyplot figure of ``size`` inches, so that a notebook and ``plt.show()`` find it."""
    figure = plt.figure(figsize=size, layout="constrained")
    return figure.add_subplot(projection=projection)


def root_figure(ax_or_figure: Axes | Figure | SubFigure) -> Figure:
    figure = ax_or_figure.figure
    while isinstance(figure, SubFigure):
        figure = figure.figure
    return figure


def check_legend(place: object) -> None:
    if place not in LEGEND_PLACES:
        raise ValueError(f"legend must be one of {LEGEND_PLACES}; found {place!r}")


def label_objectives(ax: Axes, labels: Sequence[str], senses: Sequence[Sense] = ("min", "min")) -> None:
    """Axis labels with an arrow towards the better end; the y label is turned, so its arrow points down or up."""
    words: dict[Sense, str] = {"min": "← {}, lower is better", "max": "{}, higher is better →", None: "{}"}
    x, y = (words[sense].format(label) for label, sense in zip(labels, senses, strict=True))
    ax.set_xlabel(x)
    ax.set_ylabel(y)


def check_senses(senses: object) -> None:
    if (
        isinstance(senses, str)
        or not isinstance(senses, Sequence)
        or len(senses) != 2
        or set(senses) - {"min", "max", None}
    ):
        raise ValueError(f"senses must hold 'min', 'max' or None for each of the two axes; found {senses!r}")


def check_labels(labels: object, count: int) -> None:
    if isinstance(labels, str) or not isinstance(labels, Sequence) or len(labels) != count:
        raise ValueError(f"labels must hold {count} axis labels, one per column of the points; found {labels!r}")


def extended(ax: Axes, intervals: Sequence[Interval]) -> list[Interval]:
    """The x and y intervals, widened to what the axes show already if something is drawn on them."""
    if not ax.has_data():
        return list(intervals)
    before = [sorted(ax.get_xlim()), sorted(ax.get_ylim())]
    return [(min(low, b[0]), max(high, b[1])) for (low, high), b in zip(intervals, before, strict=True)]


def add_legend(
    ax: Axes,
    handles: Sequence[Artist],
    place: LegendPlace,
    *,
    title: str | None = None,
    data: FloatArray | None = None,
    own_figure: bool,
) -> None:
    """Draws the legend beside the axes, or inside where it covers none of ``data``.

    Args:
        handles: artists with labels, in the order of the legend.
        place: ``"outside"``; ``"inside"``, which falls back to outside when each place inside covers data; or
            None for no legend.
        data: (N, 2) points, in data coordinates, that an inside legend must not cover.
        own_figure: the figure is ours, and may be widened so that the axes keep their size.
    """
    if place is None or not handles:
        return
    if place == "inside":
        # Framed, or its markers could be taken for data.
        look = {"frameon": True, "fancybox": False, "edgecolor": FAINT, "framealpha": 1.0, "borderaxespad": 0.6}
        legend = ax.legend(handles=handles, loc="best", title=title, alignment="left", **look)
        if not _covers(ax, legend, data):
            return
        legend.remove()
    figure = root_figure(ax)
    tallest = ax.get_window_extent().height if not own_figure else figure.bbox.height * 0.85
    legend = _beside(ax, handles, title, 1)
    for columns in range(2, 5):
        if legend.get_window_extent().height <= tallest:
            break
        legend.remove()
        legend = _beside(ax, handles, title, columns)
    if own_figure:
        widen(ax, [legend])


def shared_legend(axes: Iterable[Axes], *, title: str | None = None) -> Legend:
    """One legend for several panels of a figure, at its right edge, each label once.

    Give the panels ``legend=None`` and the same ``styles``. The figure should have ``layout="constrained"``,
    which makes the room for it.

    Args:
        axes: the panels, for example ``figure.axes`` or the flattened array of ``plt.subplots``.
        title: the legend's title. Default: none.

    Returns:
        The legend.

    Raises:
        ValueError: no panel has anything with a label.
    """
    handles: dict[str, Artist] = {}
    panels = list(np.ravel(np.asarray(list(axes), dtype=object)))
    for ax in panels:
        for artist, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, artist)
        if OFF_SCALE in {artist.get_gid() for artist in ax.lines}:
            arrow = {"marker": r"$\rightarrow$", "color": INK, "markersize": 9, "linestyle": "none"}
            handles.setdefault("beyond the axes", key("beyond the axes", **arrow))
    if not handles:
        raise ValueError("axes must hold panels with labelled artists; found none: draw on them first")
    figure = root_figure(panels[0])
    with style():
        legend = figure.legend(
            handles=list(handles.values()),
            labels=list(handles),
            loc="outside right upper",
            title=title,
            alignment="left",
        )
    figure.draw_without_rendering()  # the legend takes room from the panels, in which names are to stand free
    for ax in panels:
        settle_names(ax)
    return legend


def widen(ax: Axes, beside: Sequence[Artist]) -> None:
    """Makes the figure wider by what stands left and right of the axes, so that they keep their width."""
    figure = root_figure(ax)
    # Artists that share a side share its room.
    sides: dict[bool, float] = {}
    for artist in beside:
        box = artist.get_window_extent()
        left = box.x0 < ax.get_window_extent().x0
        sides[left] = max(sides.get(left, 0.0), box.width)
    figure.set_size_inches(figure.get_figwidth() + sum(sides.values()) / figure.dpi + 0.1, figure.get_figheight())


def key(label: str, **look: object) -> Line2D:
    """A line to stand in a legend."""
    return Line2D([], [], label=label, **look)  # type: ignore[arg-type]


def _beside(ax: Axes, handles: Sequence[Artist], title: str | None, columns: int) -> Legend:
    gap = 1.03 if ax.name != "3d" else 1.12
    return ax.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(gap, 1.0),
        ncols=columns,
        title=title,
        alignment="left",
        frameon=False,
    )


def _covers(ax: Axes, legend: Legend, data: FloatArray | None) -> bool:
    if data is None or not len(data):
        return False
    root_figure(ax).draw_without_rendering()  # the legend's place is only settled by a draw
    box = legend.get_window_extent().padded(4)
    pixels = ax.transData.transform(data[np.isfinite(data).all(axis=1)])
    inside = (pixels[:, 0] >= box.x0) & (pixels[:, 0] <= box.x1) & (pixels[:, 1] >= box.y0) & (pixels[:, 1] <= box.y1)
    return bool(inside.any())
