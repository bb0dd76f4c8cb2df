"""What a run can be expected to reach: the empirical attainment function over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

import moocore
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from mtopt._text import figure_text
from mtopt.plotting.arrays import Array, FloatArray, as_pieces, as_points, named_pieces
from mtopt.plotting.canvas import canvas
from mtopt.plotting.layout import (
    LegendPlace,
    check_labels,
    check_legend,
    extended,
    key,
    label_objectives,
)
from mtopt.plotting.limits import Interval, Limits, limits_of_points
from mtopt.plotting.marks import BAND, REFERENCE, draw_true_front
from mtopt.plotting.pieces import sorted_line, staircase
from mtopt.plotting.rule_style import Style, styles_for

_QUARTILES = (25, 50, 75)


def plot_attainment(
    series: Mapping[str, Sequence[Array]],
    *,
    true_front: Array | Sequence[Array] | None = None,
    reference: Array | None = None,
    labels: Sequence[str] | None = None,
    limits: Limits = "robust",
    band: bool = True,
    styles: Mapping[str, Style] | None = None,
    legend: LegendPlace = "outside",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws for each rule the median attainment surface over its seeds, and the band between the quartile surfaces.

    A seed attains a point z of objective space when one of its points is at least as good in both objectives. The
    p % surface bounds what at least p % of the seeds attain: half of the seeds reach the median surface or better, a
    quarter the lower edge of the band, three quarters its upper edge. (Fonseca and Fleming 1996; Grunert da Fonseca,
    Fonseca and Hall 2001.) With S seeds, p % means ceil(p S / 100) of them.

    Args:
        series: for each rule a list of (N, 2) arrays, one per seed; N may differ. NaN and inf are left out.
        true_front: points of the true front, (M, 2), or a list of its disconnected pieces. Default: not drawn.
        reference: the reference point, (2,), marked. Default: not drawn.
        labels: the axis labels. Default: ``("f1", "f2")``.
        limits: ``"robust"``, ``"all"`` or one ``(low, high)`` an axis, as in ``plot_front``.
        band: whether to draw the band between the quartile surfaces, for rules of two seeds or more. Default: True.
        styles: the rules' looks. Default: ``rule_styles``, a rule's own in every figure.
        legend: ``"outside"``, ``"inside"`` (outside all the same if it would cover data) or None.
        title: the title. Default: none.
        ax: where to draw. Default: a new figure.

    Returns:
        The Axes.

    Raises:
        ValueError: an argument has a wrong shape; the message names it.
    """
    seeds = named_pieces(series, "series", (2,))
    front = [] if true_front is None else as_pieces(true_front, "true_front", (2,))
    anchor = None if reference is None else as_points(reference, "reference", (2,))
    labels = ("f1", "f2") if labels is None else labels
    check_labels(labels, 2)
    check_legend(legend)
    looks = styles_for(seeds, styles)
    surfaces = {name: attainment_surfaces(parts, _QUARTILES) for name, parts in seeds.items()}
    centres = {name: np.concatenate(parts) for name, parts in seeds.items()}
    intervals = limits_of_points(limits, seeds, centres, front, anchor)
    with canvas(ax, (4.3, 3.5), title=title, legend=legend) as drawn:
        ax = drawn.ax
        intervals = extended(ax, intervals)
        drawn.keys += draw_true_front(ax, front)
        for name, (best, median, worst) in surfaces.items():
            look = looks[name]
            shown: dict[str, Any] = {"color": look.color, "linestyle": look.linestyle, "linewidth": 1.6}
            if band and len(seeds[name]) > 1:
                _fill_between(ax, best, worst, intervals, look)
            steps = _steps(median, intervals)
            ax.plot(steps[:, 0], steps[:, 1], zorder=3, label=figure_text(name), **shown)
            note = "" if len(median) else "\n  reached by less than half of the seeds"
            drawn.keys.append(key(f"{figure_text(name)} ({_seeds(len(seeds[name]))}){note}", **shown))
        if anchor is not None:
            ax.plot(*anchor.T, label="reference point", zorder=3, **REFERENCE)
            drawn.keys.append(key("reference point", **REFERENCE))
        drawn.show(intervals)
        label_objectives(ax, labels)
        drawn.heading = "median attainment surface" + (",\nband: quartile surfaces" if band else "")
        corners = [_steps(median, intervals) for _, median, _ in surfaces.values()]
        drawn.data = np.concatenate([*corners, *front])
    return ax


def attainment_surfaces(seeds: Sequence[FloatArray], percentiles: Sequence[float]) -> list[FloatArray]:
    """The corner points (M, 2) of the surface that each percentage of the seeds attains, by increasing f1.

    A seed without a finite point attains nothing, and counts all the same.
    """
    finite = [seed[np.isfinite(seed).all(axis=1)] for seed in seeds]
    kept = [seed for seed in finite if len(seed)]
    if not kept:
        return [np.empty((0, 2)) for _ in percentiles]
    owner = np.repeat(np.arange(1, len(kept) + 1), [len(seed) for seed in kept])
    every = moocore.eaf(np.concatenate(kept), owner)
    # the last column is 100 n / (number of sets) for what n of them attain
    attained_by = np.rint(every[:, 2] * len(kept) / 100).astype(int)
    surfaces = []
    for percentile in percentiles:
        need = max(1, int(np.ceil(percentile * len(seeds) / 100 - 1e-9)))
        surfaces.append(sorted_line(every[attained_by == need, :2]))
    return surfaces


def _steps(surface: FloatArray, intervals: Sequence[Interval]) -> FloatArray:
    """The staircase through the corners, from the top of the axes, or above, to their right border."""
    if not len(surface):
        return surface
    return staircase(surface, np.maximum([high for _, high in intervals], surface.max(axis=0)))


def _fill_between(ax: Axes, best: FloatArray, worst: FloatArray, intervals: Sequence[Interval], look: Style) -> None:
    """Shades what lies above the better surface and below the worse one; up to the borders where that is missing."""
    if not len(best):
        return
    lower = _steps(best, intervals)
    upper = _steps(worst, intervals) if len(worst) else lower.max(axis=0)[None]
    outline = np.concatenate([lower, upper[::-1]])
    ax.fill(*outline.T, facecolor=to_rgba(look.color, BAND), edgecolor="none", zorder=1.5)


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
