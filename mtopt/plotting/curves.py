"""A quantity over the steps of training, per rule and over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from mtopt._text import figure_text
from mtopt.plotting.arrays import Array, FloatArray, as_floats, check_mapping
from mtopt.plotting.canvas import canvas
from mtopt.plotting.layout import LegendPlace, check_legend, extended, key
from mtopt.plotting.limits import Interval, padded, robust_interval
from mtopt.plotting.marks import BAND, marker_look
from mtopt.plotting.offscale import with_note
from mtopt.plotting.rule_style import Style, styles_for

Curve = tuple[FloatArray, FloatArray]

# "auto" takes a logarithmic axis when the medians span more than this factor.
_LOG_SPAN = 100.0
_MARKERS_ON_A_LINE = 6


def plot_curves(
    curves: Mapping[str, Sequence[tuple[Array, Array]]],
    *,
    xlabel: str = "step",
    ylabel: str = "loss",
    log: bool | Literal["auto"] = False,
    styles: Mapping[str, Style] | None = None,
    legend: LegendPlace = "outside",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws for each rule the median over seeds and, with several seeds, the interquartile band.

    Seeds recorded at different steps are interpolated linearly onto the steps of all of them, each within its own
    range only: where a seed has stopped, or is NaN, the median is that of the others. A rule that rises so far
    that it would flatten the others leaves the picture, and the legend says how far it goes.

    Args:
        curves: for each rule a list of ``(steps, values)``, one per seed, each array (T,) with increasing steps.
        xlabel: the label of the x axis. Default: ``"step"``.
        ylabel: the label of the y axis. Default: ``"loss"``.
        log: whether the y axis is logarithmic; ``"auto"``: when every value is positive and the medians span more
            than two decades. Default: False.
        styles: the rules' looks. Default: ``rule_styles``, a rule's own in every figure.
        legend: ``"outside"``, ``"inside"`` (outside all the same if it would cover data) or None.
        title: the title. Default: none.
        ax: where to draw. Default: a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: arrays of a wrong shape, steps that do not increase, or ``log=True`` with values that are not
            positive.
    """
    seeds = _checked(curves)
    check_legend(legend)
    looks = styles_for(seeds, styles)
    summaries = {name: summarise(runs) for name, runs in seeds.items()}
    logarithmic = _is_log(log, seeds, summaries)
    low, high = _value_limits(summaries, logarithmic)
    with canvas(ax, (4.6, 3.3), title=title, legend=legend) as drawn:
        ax = drawn.ax
        steps = np.concatenate([summary[0] for summary in summaries.values()])
        intervals = [padded((float(steps.min()), float(steps.max())), share=0.02), (low, high)]
        intervals = extended(ax, intervals)
        if logarithmic:
            ax.set_yscale("log")
        for position, (name, (grid, quartiles)) in enumerate(summaries.items()):
            look = looks[name]
            line: dict[str, Any] = {"color": look.color, "linestyle": look.linestyle}
            every = max(1, len(grid) // _MARKERS_ON_A_LINE)
            # Shifted from rule to rule, so that the markers of curves that coincide stand side by side.
            first = every * position // len(summaries)
            marks = {**marker_look(look, small=True), "markerfacecolor": "white"}
            ax.plot(grid, quartiles[1], label=figure_text(name), zorder=3, markevery=(first, every), **line, **marks)
            if len(seeds[name]) > 1:
                ax.fill_between(
                    grid, quartiles[0], quartiles[2], color=to_rgba(look.color, BAND), linewidth=0, zorder=2
                )
            drawn.keys.append(key(with_note(figure_text(name), _note(quartiles[1], intervals[1])), **line, **marks))
        drawn.show(intervals)
        ax.set_xlabel(xlabel)
        ax.set_ylabel(ylabel)
        drawn.heading = _heading(seeds)
        drawn.data = np.concatenate([np.c_[grid, row] for grid, quartiles in summaries.values() for row in quartiles])
    return ax


def summarise(runs: Sequence[Curve]) -> tuple[FloatArray, FloatArray]:
    """The steps of all the seeds, (T,), and the quartiles over seeds at each, (3, T); NaN where no seed is."""
    grid = np.unique(np.concatenate([steps for steps, _ in runs]))
    rows = np.full((len(runs), len(grid)), np.nan)
    for row, (steps, values) in zip(rows, runs, strict=True):
        if len(steps) == len(grid):
            row[:] = values
        else:
            row[:] = np.interp(grid, steps, values, left=np.nan, right=np.nan)
    rows[~np.isfinite(rows)] = np.nan
    quartiles = np.full((3, len(grid)), np.nan)
    present = np.isfinite(rows).any(axis=0)
    quartiles[:, present] = np.nanquantile(rows[:, present], (0.25, 0.5, 0.75), axis=0)
    return grid, quartiles


def _checked(curves: Any) -> dict[str, list[Curve]]:
    check_mapping(curves, "curves")
    seeds: dict[str, list[Curve]] = {}
    for name, runs in curves.items():
        where = f"curves[{name!r}]"
        if not isinstance(runs, Sequence) or isinstance(runs, str) or not runs:
            raise ValueError(
                f"{where} must be a list of (steps, values), one per seed; found "
                f"{'an empty list' if isinstance(runs, Sequence) and not runs else type(runs).__name__}"
            )
        seeds[name] = [_curve(run, f"{where}[{number}]") for number, run in enumerate(runs)]
    return seeds


def _curve(run: Any, where: str) -> Curve:
    if not isinstance(run, Sequence) or len(run) != 2:
        raise ValueError(
            f"{where} must be a pair (steps, values); found {type(run).__name__} "
            f"of shape {np.shape(run)}: pass [(steps, values)] even for a single seed"
        )
    steps, values = as_floats(run[0], f"{where} steps"), as_floats(run[1], f"{where} values")
    if steps.ndim != 1 or steps.shape != values.shape or not len(steps):
        raise ValueError(
            f"{where} must hold steps and values of one shape (T,), T >= 1; found {steps.shape} and {values.shape}"
        )
    if not np.isfinite(steps).all() or not (np.diff(steps) > 0).all():
        raise ValueError(f"{where} steps must be finite and increase; sort the run, and drop repeated steps")
    return steps, values


def _is_log(
    log: object, seeds: Mapping[str, Sequence[Curve]], summaries: Mapping[str, tuple[FloatArray, FloatArray]]
) -> bool:
    if log not in (True, False, "auto"):
        raise ValueError(f"log must be True, False or 'auto'; found {log!r}")
    if not log:
        return False
    for name, runs in seeds.items():
        smallest = min((values[np.isfinite(values)].min(initial=np.inf) for _, values in runs), default=np.inf)
        if smallest <= 0:
            if log == "auto":
                return False
            raise ValueError(
                f"log=True needs positive values; found {smallest:g} in curves[{name!r}]: pass log=False or 'auto'"
            )
    if log == "auto":
        medians = np.concatenate([quartiles[1] for _, quartiles in summaries.values()])
        medians = medians[np.isfinite(medians)]
        return bool(len(medians) and medians.max() > _LOG_SPAN * medians.min())
    return True


def _value_limits(summaries: Mapping[str, tuple[FloatArray, FloatArray]], logarithmic: bool) -> Interval:
    # The range of each curve: most of its points lie on its tail, and must not outweigh its start.
    finite = [quartiles[np.isfinite(quartiles)] for _, quartiles in summaries.values()]
    groups = [np.array([values.min(), values.max()]) for values in finite if len(values)]
    if logarithmic:
        low, high = padded(robust_interval([np.log10(group) for group in groups]))
        return float(10.0**low), float(10.0**high)
    return padded(robust_interval(groups))


def _note(median: FloatArray, interval: Interval) -> str:
    finite = median[np.isfinite(median)]
    notes = []
    if len(finite) and finite.min() < interval[0]:
        notes.append(f"off scale, down to {finite.min():.3g}")
    if len(finite) and finite.max() > interval[1]:
        notes.append(f"off scale, up to {finite.max():.3g}")
    if len(finite) < len(median):
        notes.append("not finite at some steps")
    return "\n".join(notes)


def _heading(seeds: Mapping[str, Sequence[Curve]]) -> str | None:
    counts = sorted({len(runs) for runs in seeds.values()})
    if counts[-1] == 1:
        return None
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"median of {number} seeds,\nband: quartiles"
