"""The loss surface under a trajectory: contours of one function of the plane, or of each loss."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mtopt.plotting.arrays import FloatArray, as_floats
from mtopt.plotting.layout import key
from mtopt.plotting.limits import Interval

Levels = Callable[[torch.Tensor], Any]

_GRID = 160
_CONTOURS = 14
_CONTOURS_OF_EACH = 9
# Paler than any rule's colour: two hues that every kind of sight tells apart, and two line styles.
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": "#8FA9C4", "linestyle": "solid"},
    {"color": "#D9B48A", "linestyle": "solid"},
    {"color": "#8FA9C4", "linestyle": (0, (4, 2))},
    {"color": "#D9B48A", "linestyle": (0, (4, 2))},
)


def draw_contours(ax: Axes, levels: Levels, intervals: Sequence[Interval]) -> list[Line2D]:
    """Contours over the intervals: grey ones of a single function, or coloured ones of each loss and their keys."""
    x, y = (np.linspace(low, high, _GRID) for low, high in intervals)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    with torch.no_grad():
        answer = as_floats(levels(torch.as_tensor(grid, dtype=torch.get_default_dtype())), "problem_levels(x)")
    if answer.shape == (len(grid),):
        answer = answer[:, None]
    if answer.ndim != 2 or len(answer) != len(grid) or not 1 <= answer.shape[1] <= len(_LOOKS):
        raise ValueError(
            f"problem_levels must return one value per row, shape ({len(grid)},), or one for each loss, "
            f"({len(grid)}, K) with K <= {len(_LOOKS)}; found {answer.shape}: sum the losses over their dimension"
        )
    surfaces = [column.reshape(_GRID, _GRID) for column in answer.T]
    if len(surfaces) == 1:
        heights = _heights(surfaces[0], _CONTOURS)
        if len(heights):
            masked = np.ma.masked_invalid(surfaces[0])
            ax.contourf(x, y, masked, levels=heights, cmap="Greys_r", alpha=0.16, extend="both", zorder=0.5)
            ax.contour(x, y, masked, levels=heights, colors="#BDBDBD", linewidths=0.5, linestyles="solid", zorder=0.6)
        return []
    keys = []
    for number, (surface, look) in enumerate(zip(surfaces, _LOOKS, strict=False), start=1):
        heights = _heights(surface, _CONTOURS_OF_EACH)
        if len(heights):
            ax.contour(
                x, y, np.ma.masked_invalid(surface), levels=heights, colors=look["color"], linewidths=0.7,
                linestyles=[look["linestyle"]], zorder=0.6,
            )  # fmt: skip
            keys.append(key(f"contours of f{number}", linewidth=1.0, **look))
    return keys


def _heights(surface: FloatArray, count: int) -> FloatArray:
    """Where contours lie: quantiles, so that losses that span decades get them all over; (0,) for a flat surface."""
    finite = surface[np.isfinite(surface)]
    if not len(finite):
        return finite
    heights: FloatArray = np.unique(np.quantile(finite, np.linspace(0.01, 0.97, count)))
    if len(heights) < 2 or not np.all(np.diff(heights) > 1e-12 * np.abs(heights).max()):
        return heights[:0]
    return heights
