"""The figure of one front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mtopt._text import figure_text
from mtopt.plotting import Style, plot_front, plot_parallel, series_styles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FRONT, _BEHIND = "non-dominated", "dominated"


def draw_front(
    points: NDArray[np.float64],
    inside: NDArray[np.bool_],
    chosen: Sequence[int],
    reference: NDArray[np.float64] | None,
    labels: Sequence[str] | None,
    title: str | None,
) -> Figure:
    """Points in the plane, in space or on parallel axes; what is marked is named by its position."""
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(points).all(axis=1))
    if not inside.any():
        raise ValueError(f"the front has no finite point to draw, found {len(points)} that diverged")
    series = {_FRONT: points[inside]}
    if (finite & ~inside).any():
        series[_BEHIND] = points[finite & ~inside]
    series |= {f"point {index}": points[index][None] for index in chosen if finite[index]}
    looks = {**series_styles([_FRONT, *(f"point {index}" for index in chosen)]), _BEHIND: Style("#9A9A9A", "x", ":")}
    names = None if labels is None else [figure_text(label) for label in labels]
    count = points.shape[1]
    if count > 3:
        ax = plot_parallel(series, labels=names, styles=looks, title=title)
    else:
        ax = plot_front(
            series,
            labels=names,
            styles=looks,
            reference=reference,
            shade={_FRONT} if reference is not None else False,
            title=title,
        )
    return ax.figure  # type: ignore[return-value]  # of its own, never a subfigure
