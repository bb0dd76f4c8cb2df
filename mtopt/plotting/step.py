"""One step in the picture's coordinates, and its marks: what the plane and space share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from mtopt._text import figure_text
from mtopt.plotting.arrays import FloatArray
from mtopt.plotting.layout import key
from mtopt.plotting.marks import marker_look
from mtopt.plotting.offscale import with_note
from mtopt.plotting.rule_style import Style

CONE = "#DCEBDD"
HULL = "#7A7A7A"
HULL_LINE: dict[str, Any] = {"color": HULL, "linestyle": (0, (3, 2)), "linewidth": 1.2}
# Tips nearer than this share of the picture stand at one point, and get markers one around the other.
_SAME_TIP = 0.015
# A direction whose length in the picture is below this share of its own is said to be projected.
_FLAT = 0.999


@dataclass(frozen=True)
class Step:
    """Gradients and directions in the picture's coordinates, and what share of each length they show."""

    names: list[str]
    gradients: FloatArray
    directions: dict[str, FloatArray]
    shown: dict[str, float]
    axis_labels: tuple[str, ...]


def tip_keys(step: Step, looks: Mapping[str, Style]) -> tuple[list[dict[str, Any]], list[Line2D]]:
    """The marker of each direction's tip, and its key in the legend; markers at one point stand around one another."""
    tips = np.array(list(step.directions.values())).reshape(len(step.directions), step.gradients.shape[1])
    extent = np.abs(np.concatenate([step.gradients, tips])).max()
    marks, keys = [], []
    for position, (name, look) in enumerate((name, looks[name]) for name in step.directions):
        later = np.abs(tips[position + 1 :] - tips[position]).max(axis=1) < _SAME_TIP * extent
        mark = marker_look(look, small=True)
        share = step.shown[name]
        note = "" if share >= _FLAT else f"projected: {100 * share:.0f} % of its length"
        keys.append(
            key(with_note(figure_text(name), note), color=look.color, linestyle=look.linestyle, linewidth=1.5, **mark)
        )
        marks.append({**mark, "markersize": mark["markersize"] * (1 + 0.6 * later.sum())})
    return marks, keys
