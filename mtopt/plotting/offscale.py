"""Points beyond the axis limits: shown at the border with an arrow, and told in the legend."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from mtopt.plotting.arrays import BoolArray, FloatArray
from mtopt.plotting.rule_style import Style

OFF_SCALE = "off scale"
# Distance from the border, as a share of each axis, at which a point beyond it is shown.
_INSET = np.array([0.05, 0.065])


def in_view(points: FloatArray, intervals: Sequence[tuple[float, float]]) -> BoolArray:
    """Which of the (N, K) points lie within the K intervals; (N,), False for a NaN."""
    low, high = np.array(intervals, dtype=np.float64).T
    inside: BoolArray = ((points >= low) & (points <= high)).all(axis=1)
    return inside


def border_places(points: FloatArray, intervals: Sequence[tuple[float, float]]) -> FloatArray:
    """Where the finite (N, 2) points are shown, as shares of the axes: those outside the intervals near the border."""
    low, high = np.array(intervals, dtype=np.float64).T
    shares = (points - low) / (high - low)
    inside = in_view(points, intervals)[:, None]
    places: FloatArray = np.where(inside, shares, np.clip(shares, _INSET, 1 - _INSET))
    return places


def draw_offscale(ax: Axes, points: FloatArray, intervals: Sequence[tuple[float, float]], style: Style) -> None:
    """A hollow marker and an arrow at the border for the finite (N, 2) points outside the intervals."""
    beyond = points[np.isfinite(points).all(axis=1) & ~in_view(points, intervals)]
    if not len(beyond):
        return
    low, high = np.array(intervals, dtype=np.float64).T
    shares = (beyond - low) / (high - low)
    places = border_places(beyond, intervals)
    outwards = np.where(shares > 1, 1.0, np.where(shares < 0, -1.0, 0.0))
    # Points that leave at about the same spot share one arrow.
    _, first = np.unique(np.round(np.hstack([places * 25, outwards])), axis=0, return_index=True)
    for place, outward in zip(places[first], outwards[first], strict=True):
        ax.annotate(
            "",
            xy=tuple(place + outward * _INSET),
            xytext=tuple(place),
            xycoords="axes fraction",
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-|>", "color": style.color, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False,
            zorder=4,
        )
    ax.plot(
        places[first, 0],
        places[first, 1],
        transform=ax.transAxes,
        linestyle="none",
        marker=style.marker,
        markerfacecolor="white",
        markeredgecolor=style.color,
        markeredgewidth=1.2,
        label="_" + OFF_SCALE,
        gid=OFF_SCALE,
        zorder=5,
    )


def offscale_note(points: FloatArray, intervals: Sequence[tuple[float, float]], labels: Sequence[str]) -> str:
    """What the legend says of points out of view, as in ``"2 of 5 off scale: f1 to 52"``; empty for none."""
    finite = np.isfinite(points).all(axis=1)
    beyond = points[finite & ~in_view(points, intervals)]
    notes = []
    if len(beyond):
        reach = []
        for column, (low, high) in enumerate(intervals):
            smallest, largest = beyond[:, column].min(), beyond[:, column].max()
            if smallest < low:
                reach.append(f"{labels[column]} to {smallest:.3g}")
            if largest > high:
                reach.append(f"{labels[column]} to {largest:.3g}")
        separator = ", " if sum(map(len, reach)) < 40 else ",\n"
        notes.append(f"{_count(len(beyond), len(points))}off scale: {separator.join(reach)}")
    if not finite.all():
        notes.append(f"{_count(int((~finite).sum()), len(points))}not finite")
    return "\n".join(notes)


def with_note(name: str, note: str) -> str:
    """A legend label with a note on the lines below it."""
    return "\n  ".join([name, *note.split("\n")]) if note else name


def _count(part: int, whole: int) -> str:
    return "" if whole == 1 else f"{part} of {whole} "
