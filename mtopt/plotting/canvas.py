"""The frame that every figure has: the house style, Axes to draw on, a title, and a legend that covers no data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from mtopt.plotting.arrays import FloatArray
from mtopt.plotting.layout import LegendPlace, add_legend, new_axes, widen
from mtopt.plotting.limits import Interval
from mtopt.plotting.theme import style


@dataclass
class Canvas:
    """Axes, and what the frame knows of what is drawn on them.

    Attributes:
        keys: the legend's entries, in its order; none, and there is no legend.
        heading: the legend's title.
        data: (N, 2) points, in data coordinates, that a legend inside must not cover.
        beside: artists left and right of the axes, for which a figure of ours is made wider.
        title_pad: points between the axes and the title; None for the style's.
    """

    ax: Axes
    keys: list[Artist] = field(default_factory=list)
    heading: str | None = None
    data: FloatArray = field(default_factory=lambda: np.empty((0, 2)))
    beside: list[Artist] = field(default_factory=list)
    title_pad: float | None = None

    def show(self, intervals: Sequence[Interval]) -> None:
        """Let the axes show these x and y intervals."""
        self.ax.set_xlim(*intervals[0])
        self.ax.set_ylim(*intervals[1])


@contextmanager
def canvas(
    ax: Axes | None,
    size: tuple[float, float],
    *,
    title: str | None,
    legend: LegendPlace = None,
    projection: str | None = None,
) -> Iterator[Canvas]:
    """``ax``, or Axes on a new figure of ``size`` inches, in the house style; the title and the legend come last."""
    with style():
        drawn = Canvas(new_axes(size, projection=projection) if ax is None else ax)
        yield drawn
        if title is not None:
            drawn.ax.set_title(title, pad=drawn.title_pad)
        add_legend(drawn.ax, drawn.keys, legend, title=drawn.heading, data=drawn.data, own_figure=ax is None)
        if ax is None and drawn.beside:
            widen(drawn.ax, drawn.beside)
