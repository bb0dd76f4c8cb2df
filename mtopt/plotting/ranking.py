"""One score a rule, with its interval, best on top."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.transforms import ScaledTranslation

from mtopt._text import figure_text
from mtopt.plotting.arrays import Array, FloatArray, as_floats, check_mapping
from mtopt.plotting.canvas import canvas
from mtopt.plotting.layout import root_figure
from mtopt.plotting.limits import Interval, padded, robust_interval
from mtopt.plotting.marks import marker_look
from mtopt.plotting.offscale import draw_offscale
from mtopt.plotting.rule_style import Style, styles_for
from mtopt.plotting.theme import FAINT, INK

_ROW_INCHES = 0.27


def plot_ranking(
    means: Mapping[str, float],
    intervals: Mapping[str, Array] | None = None,
    *,
    interval: str | None = None,
    xlabel: str = "score",
    higher_is_better: bool = False,
    baseline: str | None = None,
    show_values: bool = True,
    value_format: str | None = None,
    groups: Sequence[Collection[str]] = (),
    styles: Mapping[str, Style] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draws a dot and an interval for each rule, the best on top, and the numbers at the right.

    Args:
        means: the score of each rule; a rule without a result (NaN or inf) stands at the bottom and is said to
            have none.
        intervals: ``(low, high)`` for each rule, the ends themselves and not distances from the mean. Default:
            dots only.
        interval: what the intervals are, as in ``"95 % bootstrap interval"`` or ``"quartiles over seeds"``, for the
            axis to say. Default: it does not say.
        xlabel: what the score is, with its unit. Default: ``"score"``.
        higher_is_better: which end is on top. Default: False.
        baseline: a rule whose mean is drawn as a vertical line: the tuned static scalarization, say. Default:
            none.
        show_values: whether to write mean and interval beside each row. Default: True.
        value_format: how a number is written, as in ``".2f"``. Default: with as many decimals for all as give the
            middle score three digits.
        groups: rules that stand together, such as those that a test does not tell apart; a bar at the right spans
            the rows of each. Default: none.
        styles: the rules' looks. Default: ``rule_styles``, a rule's own in every figure.
        title: the title. Default: none.
        ax: where to draw. Default: a new figure, as high as the number of rules asks for.

    Returns:
        The Axes.

    Raises:
        ValueError: a score or an interval that is missing, not a number, or the wrong way round; a group of rules that
            are not there.
    """
    scores = _scores(means)
    ends = None if intervals is None else _ends(scores, intervals)
    if interval is not None and ends is None:
        raise ValueError(f"interval says what intervals are, and there are none; found {interval!r}: pass intervals=")
    if baseline is not None and baseline not in scores:
        raise ValueError(f"baseline must name a rule of means; found {baseline!r}, while means has {list(scores)}")
    if unknown := sorted({name for group in groups for name in group} - set(scores)):
        raise ValueError(f"groups must name rules of means; found {unknown}, while means has {list(scores)}")
    looks = styles_for(scores, styles)
    sign = -1.0 if higher_is_better else 1.0
    order = sorted(scores, key=lambda name: sign * scores[name] if np.isfinite(scores[name]) else np.inf)
    limits = _limits(scores, ends)
    with canvas(ax, (3.2, 0.9 + _ROW_INCHES * len(scores) + (0.25 if title else 0.0)), title=title) as drawn:
        ax = drawn.ax
        _draw_frame(ax, order, scores, limits, baseline)
        drawn.beside += ax.get_yticklabels()
        for row, name in enumerate(order):
            _draw_row(ax, row, scores[name], None if ends is None else ends[name], limits, len(order), looks[name])
        if show_values:
            form = common_format(list(scores.values())) if value_format is None else value_format
            texts = [_text(scores[name], None if ends is None else ends[name], form) for name in order]
            drawn.beside += _write_values(ax, texts)
        drawn.beside += _draw_groups(ax, [[order.index(name) for name in group] for group in groups], drawn.beside)
        arrow = f"{xlabel}, higher is better →" if higher_is_better else f"← {xlabel}, lower is better"
        told = [] if interval is None else [f"bar: {figure_text(interval)}"]
        told += [] if baseline is None else [f"dashed line: {figure_text(baseline)}"]
        ax.set_xlabel(f"{arrow}\n({', '.join(told)})" if told else arrow)
    return ax


def common_format(scores: Sequence[float]) -> str:
    """Decimals that give the middle one of the finite scores three digits; powers of ten beyond six."""
    sizes = np.abs([score for score in scores if np.isfinite(score) and score != 0])
    if not len(sizes):
        return ".2f"
    exponent = int(np.floor(np.log10(np.median(sizes))))
    return f".{max(0, 2 - exponent)}f" if -4 <= exponent <= 5 else ".2e"


def _scores(means: Any) -> dict[str, float]:
    check_mapping(means, "means")
    scores = {}
    for name, mean in means.items():
        value = as_floats(mean, f"means[{name!r}]")
        if value.size != 1:
            raise ValueError(f"means[{name!r}] must be a single number; found shape {value.shape}")
        scores[name] = float(value.reshape(()))
    return scores


def _ends(scores: Mapping[str, float], intervals: Any) -> dict[str, FloatArray]:
    check_mapping(intervals, "intervals")
    missing = [name for name in scores if name not in intervals]
    if missing:
        raise ValueError(f"intervals must have (low, high) for every rule of means; found none for {missing}")
    ends = {}
    for name, mean in scores.items():
        pair = as_floats(intervals[name], f"intervals[{name!r}]")
        if pair.shape != (2,):
            raise ValueError(f"intervals[{name!r}] must be (low, high); found shape {pair.shape}")
        slack = 1e-9 * np.abs(pair).max() if np.isfinite(pair).all() else 0.0
        if np.isfinite(mean) and not pair[0] - slack <= mean <= pair[1] + slack and np.isfinite(pair).all():
            raise ValueError(
                f"intervals[{name!r}] must hold the mean {mean:g} between its ends; found ({pair[0]:g}, {pair[1]:g}): "
                "pass the ends themselves, not distances from the mean"
            )
        ends[name] = pair
    return ends


def _limits(scores: Mapping[str, float], ends: Mapping[str, FloatArray] | None) -> Interval:
    groups = [np.array([score, *(ends[name] if ends else ())]) for name, score in scores.items()]
    values = np.concatenate(groups)
    return padded(robust_interval(groups), values[np.isfinite(values)])


def _draw_frame(
    ax: Axes, order: list[str], scores: Mapping[str, float], limits: Interval, baseline: str | None
) -> None:
    ax.set_xlim(*limits)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_yticks(range(len(order)), labels=[figure_text(name) for name in order])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False, axis="y")
    for row in range(len(order)):
        ax.axhline(row, color=FAINT, linewidth=0.7, linestyle=(0, (1, 2)), zorder=0.8)
    if baseline is not None and np.isfinite(scores[baseline]):
        ax.axvline(
            scores[baseline], color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.2, label=figure_text(baseline)
        )


def _draw_row(
    ax: Axes, row: int, score: float, ends: FloatArray | None, limits: Interval, rows: int, look: Style
) -> None:
    if not np.isfinite(score):
        return
    if ends is not None and np.isfinite(ends).all():
        ax.plot(ends, [row, row], color=look.color, linewidth=1.6, marker="|", markersize=6, zorder=2.5)
    marks = {**marker_look(look, small=True), "markerfacecolor": look.color}
    ax.plot([score], [row], linestyle="none", zorder=3, **marks)
    # draw_offscale works in shares of the axes; rows are counted downwards.
    draw_offscale(ax, np.array([[score, rows - 0.4 - row]]), [limits, (0.0, rows + 0.2)], look)


def _write_values(ax: Axes, texts: Sequence[str]) -> list[Annotation]:
    """One text a row at the right of the axes."""
    return [
        ax.annotate(
            text,
            (1.0, row),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
            annotation_clip=False,
        )
        for row, text in enumerate(texts)
    ]


def _draw_groups(ax: Axes, groups: Sequence[Sequence[int]], beside: Sequence[Artist]) -> list[Artist]:
    """A bar for the rows of each group, right of what stands there; groups that share a row are side by side."""
    figure = root_figure(ax)
    edge = ax.get_window_extent().x1
    room = max((artist.get_window_extent().x1 - edge for artist in beside), default=0.0) * 72 / figure.dpi
    ends: list[int] = []  # of each column of bars, the last row that is taken
    bars: list[Artist] = []
    for rows in sorted(groups, key=min):
        column = next((n for n, end in enumerate(ends) if end < min(rows)), len(ends))
        ends[column : column + 1] = [max(rows)]
        aside = ScaledTranslation((max(room, 0.0) + 12 + 6 * column) / 72, 0.0, figure.dpi_scale_trans)
        bar = Line2D(
            [1.0, 1.0],
            [min(rows) - 0.3, max(rows) + 0.3],
            transform=ax.get_yaxis_transform() + aside,
            color=INK,
            linewidth=2.5,
            solid_capstyle="butt",
            clip_on=False,
        )
        bars.append(ax.add_artist(bar))
    return bars


def _text(score: float, ends: FloatArray | None, form: str) -> str:
    if not np.isfinite(score):
        return "no result"
    if ends is None:
        return format(score, form)
    return f"{score:{form}}  [{ends[0]:{form}}, {ends[1]:{form}}]"
