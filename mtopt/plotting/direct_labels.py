"""Names written beside what they name, where they cover least of what is drawn."""

from collections.abc import Iterator, Mapping
from itertools import pairwise, product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text

from mtopt._text import figure_text
from mtopt.plotting.arrays import FloatArray
from mtopt.plotting.rule_style import Style

_NAME = "direct label"
_DISTANCES = (7.0, 14.0, 22.0, 32.0, 44.0)
# A name that is further from its mark than this is joined to it by a line. Both in points.
_LEADER_FROM = 10.0
_DIRECTIONS = [np.array([np.cos(angle), np.sin(angle)]) for angle in np.linspace(0.0, 2 * np.pi, 16, endpoint=False)]
# Pixels that stay free around a name.
_GAP = 2.0


def write_names(ax: Axes, places: Mapping[str, FloatArray], looks: Mapping[str, Style]) -> None:
    """Write each name in its colour, for its mark at (2,) in data coordinates; :func:`settle_names` moves it beside."""
    for name, place in places.items():
        color = looks[name].color
        ax.annotate(
            figure_text(name),
            (float(place[0]), float(place[1])),
            xytext=(0.0, 0.0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize="small",
            color=color,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 0.0, "shrinkB": 4.0},
            annotation_clip=False,
            zorder=7,
            gid=_NAME,
        )


def settle_names(ax: Axes) -> None:
    """Move the names to where they cover least. Call it once the layout is settled, and after what changes it."""
    names = [text for text in ax.texts if isinstance(text, Annotation) and text.get_gid() == _NAME]
    pixels = ax.figure.dpi / 72.0  # a point
    frame = ax.get_window_extent()
    inner = np.array([[frame.x0, frame.y0], [frame.x1, frame.y1]])
    lines, marks = _drawn(ax) if names else (np.empty((0, 2)), np.empty((0, 2)))
    taken: list[FloatArray] = []
    for name in names:
        mark = ax.transData.transform(name.xy)
        extent = Text.get_window_extent(name)  # an Annotation's own would include the line to its mark
        half = np.array([extent.width, extent.height]) / 2.0 + _GAP
        best, chosen, far = np.inf, mark, False
        for distance, centre in _places(mark, half, pixels):
            box = np.stack([centre - half, centre + half])
            beyond = np.maximum(inner[0] - box[0], 0.0).sum() + np.maximum(box[1] - inner[1], 0.0).sum()
            hidden = float(beyond) + sum(_shared(box, other) for other in taken)
            cost = 1e3 * hidden + 15.0 * _inside(marks, box) + _inside(lines, box) + 0.25 * distance
            if cost < best:
                best, chosen, far = cost, centre, distance > _LEADER_FROM
        taken.append(np.stack([chosen - half, chosen + half]))
        offset = (chosen - mark) / pixels
        name.set_position((float(offset[0]), float(offset[1])))
        if name.arrow_patch is not None:
            name.arrow_patch.set_visible(far)


def _places(mark: FloatArray, half: FloatArray, pixels: float) -> Iterator[tuple[float, FloatArray]]:
    """Distances in points, and the centres of the boxes whose border is that far from the mark, all around it."""
    for distance, direction in product(_DISTANCES, _DIRECTIONS):
        within = np.min(half / np.maximum(np.abs(direction), 1e-9))
        yield distance, mark + direction * (distance * pixels + within)


def _drawn(ax: Axes) -> tuple[FloatArray, FloatArray]:
    """What names should not cover, in pixels: points every few pixels along the lines, and the markers."""
    along, marks = [np.empty((0, 2))], [np.empty((0, 2))]
    for line in ax.lines:
        points = line.get_transform().transform(np.column_stack(line.get_data()).astype(np.float64))
        points = points[np.isfinite(points).all(axis=1)]
        if line.get_linestyle() != "None":
            for a, b in pairwise(points):
                along.append(np.linspace(a, b, int(np.clip(np.hypot(*(b - a)) / 4, 2, 500))))
        if line.get_marker() not in ("None", "none", "", " ", None):
            marks.append(points)
    return np.concatenate(along), np.concatenate(marks)


def _inside(points: FloatArray, box: FloatArray) -> int:
    return int(((points >= box[0]) & (points <= box[1])).all(axis=1).sum())


def _shared(box: FloatArray, other: FloatArray) -> float:
    """The shorter side of what two boxes share."""
    sides = np.minimum(box[1], other[1]) - np.maximum(box[0], other[0])
    return max(float(sides.min()), 0.0)
