"""Marks that several figures share, in the plane and in space."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from mtopt.plotting.arrays import FloatArray
from mtopt.plotting.pieces import front_line
from mtopt.plotting.rule_style import Style
from mtopt.plotting.theme import INK

REFERENCE: dict[str, Any] = {"marker": "+", "color": INK, "markersize": 9, "markeredgewidth": 1.5, "linestyle": "none"}
"""The reference point of the hypervolume."""

BAND = 0.17
"""How opaque a band of quartiles is."""


def marker_look(look: Style, *, small: bool = False) -> dict[str, Any]:
    """Markers see-through inside, so that rules which end at the same point can all be seen."""
    evened = {"*": 8.5, "D": 5.6}.get(look.marker, 6.5)  # some shapes look larger than others of their size
    return {
        "marker": look.marker,
        "markersize": evened * (0.8 if small else 1.0),
        "markerfacecolor": to_rgba(look.color, 0.3),
        "markeredgecolor": look.color,
        "markeredgewidth": 1.1,
    }


def draw_true_front(ax: Axes, pieces: Sequence[FloatArray]) -> list[Line2D]:
    """The true front as a line, broken where it is; none where there are no ``pieces``."""
    if not pieces:
        return []
    line = front_line(pieces)
    return ax.plot(line[:, 0], line[:, 1], color=INK, linewidth=1.4, zorder=2, label="true front")
