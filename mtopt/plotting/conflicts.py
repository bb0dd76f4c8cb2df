"""How the gradients of the losses agree over the steps of a training."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes

from mtopt._text import figure_text
from mtopt.plotting.arrays import Array, FloatArray, as_floats
from mtopt.plotting.canvas import canvas
from mtopt.plotting.layout import LegendPlace, check_legend, key
from mtopt.plotting.recorded import LINE, Recorded, check_window, draw_medians, frame_steps, recorded
from mtopt.plotting.rule_style import Style, series_styles, styles_for
from mtopt.plotting.theme import INK

_COUNT = "pairs in conflict"


def plot_conflicts(
    cosines: Any,
    *,
    show: Literal["cosines", "count"] = "cosines",
    steps: Array | None = None,
    skipped: Array | None = None,
    names: list[str] | None = None,
    window: int | None = None,
    styles: Mapping[str, Style] | None = None,
    legend: LegendPlace = "outside",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws the cosine between the gradients of each pair of losses over the steps, or how many pairs conflict.

    Two losses conflict in a step when the cosine of their gradients is negative: that half is shaded, and the legend
    gives the share of the steps in it.

    Args:
        cosines: the history of a training (``trainer.history``); or a mapping from pairs of names to arrays (T,); or
            (T, K, K). NaN where a step has no cosine.
        show: ``"cosines"``, one line a pair; or ``"count"``, the number of pairs in conflict, for many losses.
        steps: the step of each row, (T,), increasing. Default: the history's, or 1 to T.
        skipped: which steps were skipped, (T,); marked by a cross. Default: the history's, or none.
        names: the losses, for an array (T, K, K). Default: ``"loss 1"`` and so on.
        window: draw the median of so many consecutive steps, and their quartiles as a band. Default: as many as make
            at most 100 windows; 1 draws every step.
        styles: the looks of the pairs (``"a, b"``), from ``series_styles``. Default: by position.
        legend: ``"outside"``, ``"inside"`` (outside all the same if it would cover data) or None.
        title: the title. Default: none.
        ax: where to draw. Default: a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: an argument has a wrong shape, or there is no cosine at all.
    """
    if show not in ("cosines", "count"):
        raise ValueError(f"show must be 'cosines' or 'count'; found {show!r}")
    check_legend(legend)
    record = _counted(cosines, steps, skipped, names) if show == "count" else _cosines(cosines, steps, skipped, names)
    window = check_window(window, len(record.steps))
    looks = styles_for(record.columns, styles, series_styles)
    with canvas(ax, (4.8, 3.0), title=title, legend=legend) as drawn:
        ax = drawn.ax
        at, medians = draw_medians(ax, record, window, looks)
        for name, values in record.columns.items():
            look = looks[name]
            label = f"{figure_text(name)}\n  {_summary(values, show)}"
            drawn.keys.append(key(label, color=look.color, linestyle=look.linestyle, linewidth=LINE))
        if show == "cosines":
            _shade_conflict(ax)
        else:
            ax.set_ylim(0, max(1.0, 1.05 * float(np.nanmax(record.columns[_COUNT]))))
            ax.set_ylabel("pairs of losses in conflict")
        drawn.keys += frame_steps(ax, record)
        drawn.heading = f"median of {window} steps,\nband: quartiles" if window > 1 else None
        drawn.data = np.concatenate([np.c_[at, median] for median in medians])
    return ax


def _shade_conflict(ax: Axes) -> None:
    """The half in which two losses conflict."""
    ax.axhspan(-1.05, 0, color="#F3F3F3", zorder=0.4)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    ax.set_ylim(-1.05, 1.05)
    # written at the right border in axes coordinates, below every line that could pass there
    ax.text(0.995, 0.02, "conflict", transform=ax.transAxes, ha="right", va="bottom", fontsize=8, color="#555555")
    ax.set_ylabel("cosine of the gradients")


def _cosines(source: Any, steps: Any, skipped: Any, names: Any) -> Recorded:
    record = recorded(source, "cosines", steps, skipped, names)
    every = np.concatenate(list(record.columns.values()))
    if not np.isfinite(every).any():
        raise ValueError("cosines must have a finite value; found none: a rule that needs losses alone records none")
    finite = every[np.isfinite(every)]
    if np.abs(finite).max() > 1 + 1e-6:
        raise ValueError(f"cosines must lie between -1 and 1; found {finite[np.abs(finite).argmax()]:g}")
    return record


def _counted(source: Any, steps: Any, skipped: Any, names: Any) -> Recorded:
    """The number of pairs in conflict; a history has counted it, for more losses than it keeps cosines of, too."""
    if hasattr(source, "conflicts"):
        steps = source.steps if steps is None else steps
        skipped = source["skipped"] if skipped is None else skipped
        counts: FloatArray = as_floats(source.conflicts, "conflicts")
        if not np.isfinite(counts).any():
            raise ValueError("no step has counted conflicts: a rule that needs the losses alone has no gradients")
        return recorded({_COUNT: counts}, "cosines", steps, skipped)
    record = _cosines(source, steps, skipped, names)
    stacked = np.stack(list(record.columns.values()))
    counts = np.where(np.isfinite(stacked).any(axis=0), (stacked < 0).sum(axis=0), np.nan)
    return Recorded(record.steps, {_COUNT: counts}, record.skipped)


def _summary(values: FloatArray, show: str) -> str:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "no finite value"
    if show == "count":
        return f"mean {finite.mean():.2g}, most {finite.max():.0f}"
    return f"in conflict {100 * np.mean(finite < 0):.0f} % of steps"
