"""The weights that a rule gave to the losses over the steps of a training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from mtopt._text import figure_text
from mtopt.plotting.arrays import Array, FloatArray
from mtopt.plotting.canvas import canvas
from mtopt.plotting.layout import LegendPlace, check_legend, key
from mtopt.plotting.recorded import LINE, Recorded, check_window, draw_medians, frame_steps, middles, recorded, windowed
from mtopt.plotting.rule_style import Style, series_styles, styles_for
from mtopt.plotting.theme import INK


def plot_weights(
    weights: Any,
    *,
    stacked: bool = False,
    steps: Array | None = None,
    skipped: Array | None = None,
    names: list[str] | None = None,
    window: int | None = None,
    log: bool = False,
    styles: Mapping[str, Style] | None = None,
    legend: LegendPlace = "outside",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws the weight of each loss over the steps: as lines, or stacked as shares of their sum.

    Args:
        weights: the history of a training (``trainer.history``); or a mapping from names to arrays (T,); or (T, K).
            NaN where a step gave none.
        stacked: draw the mean over each window as a share of the sum of all; weights must not be negative.
            Default: the median over each window as lines, with the quartiles as a band.
        steps: the step of each row, (T,), increasing. Default: the history's, or 1 to T.
        skipped: which steps were skipped, (T,); marked by a cross. Default: the history's, or none.
        names: the losses, for an array (T, K). Default: ``"loss 1"`` and so on.
        window: how many consecutive steps make a window. Default: as many as make at most 100; 1 draws every step.
        log: whether the y axis is logarithmic; lines of positive weights only. Default: False.
        styles: the losses' looks, from ``series_styles``. Default: by position.
        legend: ``"outside"``, ``"inside"`` (outside all the same if it would cover data) or None.
        title: the title. Default: none.
        ax: where to draw. Default: a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: an argument has a wrong shape, no step gave weights, a negative weight with ``stacked``, or one
            that is not positive with ``log``.
    """
    check_legend(legend)
    record = recorded(weights, "weights", steps, skipped, names)
    _check_values(record, stacked, log)
    window = check_window(window, len(record.steps))
    looks = styles_for(record.columns, styles, series_styles)
    with canvas(ax, (4.8, 3.0), title=title, legend=legend) as drawn:
        ax = drawn.ax
        if stacked:
            keys, drawn.data = _draw_shares(ax, record, window, looks)
        else:
            at, medians = draw_medians(ax, record, window, looks)
            keys = [
                key(figure_text(name), color=looks[name].color, linestyle=looks[name].linestyle, linewidth=LINE)
                for name in record.columns
            ]
            drawn.data = np.concatenate([np.c_[at, median] for median in medians])
            if log:
                ax.set_yscale("log")
            else:
                ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
            ax.set_ylabel("weight")
        drawn.keys += [*keys, *frame_steps(ax, record)]
        if window > 1:
            drawn.heading = f"mean of {window} steps" if stacked else f"median of {window} steps,\nband: quartiles"
    return ax


def _draw_shares(ax: Axes, record: Recorded, window: int, looks: Mapping[str, Style]) -> tuple[list[Any], FloatArray]:
    """Layers from 0 to 1; the legend's keys, and the points of the topmost line."""
    at, tops = middles(record.steps, window), np.cumsum(_shares(record, window), axis=0)
    keys: list[Any] = []
    floor = np.zeros(len(at))
    for (name, look), top in zip(looks.items(), tops, strict=False):
        face, shown = to_rgba(look.color, 0.55), figure_text(name)
        ax.fill_between(at, floor, top, facecolor=face, linewidth=0, zorder=2, label=shown)
        ax.plot(at, top, color="white", linewidth=0.8, zorder=2.5, label=f"_top of {name}")
        keys.insert(0, Patch(facecolor=face, label=shown))  # the layers' order in the picture, from top to bottom
        floor = top
    ax.set_ylim(0, 1)
    ax.set_ylabel("share of the weights")
    return keys, np.c_[at, floor]


def _check_values(record: Recorded, stacked: bool, log: bool) -> None:
    values = np.concatenate(list(record.columns.values()))
    finite = values[np.isfinite(values)]
    if not len(finite):
        raise ValueError("weights must have a finite value; found none: this rule gives no weights to record")
    if stacked and log:
        raise ValueError("stacked draws shares of a sum, which a logarithmic axis would distort; pass log=False")
    if stacked and finite.min() < 0:
        raise ValueError(f"stacked needs weights that are not negative; found {finite.min():g}: pass stacked=False")
    if log and finite.min() <= 0:
        raise ValueError(f"log=True needs positive weights; found {finite.min():g}: pass log=False")


def _shares(record: Recorded, window: int) -> FloatArray:
    """(K, W): the means over windows, divided by their sum; a loss absent from a window counts as 0."""
    means = []
    for values in record.columns.values():
        rows = windowed(values, window)
        present = np.isfinite(rows)
        means.append(np.where(present, rows, 0.0).sum(axis=1) / np.maximum(present.sum(axis=1), 1))
    stack = np.stack(means)
    total = stack.sum(axis=0)
    # a window that gave no weights at all is a gap
    shares: FloatArray = np.divide(stack, total, out=np.full_like(stack, np.nan), where=total > 0)
    return shares
