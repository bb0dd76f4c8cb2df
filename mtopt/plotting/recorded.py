"""What was recorded over the steps of a training, from a history or from arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D

from mtopt._text import figure_text, joined
from mtopt.plotting.arrays import BoolArray, FloatArray, as_floats
from mtopt.plotting.layout import key
from mtopt.plotting.limits import padded
from mtopt.plotting.marks import BAND
from mtopt.plotting.rule_style import Style
from mtopt.plotting.theme import INK

LINE = 1.4
"""The width of a line of medians."""

_WINDOWS = 100
_SKIPPED: dict[str, Any] = {
    "marker": "x",
    "markersize": 4.5,
    "markeredgewidth": 1.1,
    "color": INK,
    "linestyle": "none",
}


@dataclass(frozen=True)
class Recorded:
    """Columns over T steps: NaN where a step did not have the value."""

    steps: FloatArray
    columns: dict[str, FloatArray]
    skipped: BoolArray


def recorded(
    source: Any, section: Literal["cosines", "weights"], steps: Any, skipped: Any, names: Any = None
) -> Recorded:
    """The columns of a section of a history, or of arrays: a mapping of (T,), weights (T, K), cosines (T, K, K).

    A history is whatever has the section as an attribute, ``steps``, and ``["skipped"]``.
    """
    if hasattr(source, section):
        steps = source.steps if steps is None else steps
        skipped = source["skipped"] if skipped is None else skipped
        source = getattr(source, section)
    if not isinstance(source, Mapping):
        source = _split(as_floats(source, section), section, names)
    if not source:
        raise ValueError(
            f"{section} must hold at least one column; found none: a rule that needs the losses alone has no gradients "
            f"to record" + (", and no step has given weights" if section == "weights" else "")
        )
    columns = {_name(label): as_floats(values, f"{section}[{label!r}]") for label, values in source.items()}
    shapes = {values.shape for values in columns.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1 or next(iter(shapes)) == (0,):
        found = {name: values.shape for name, values in columns.items()}
        raise ValueError(f"{section} must hold columns of one shape (T,), T >= 1; found {found}")
    count = len(next(iter(columns.values())))
    at = np.arange(1.0, count + 1) if steps is None else as_floats(steps, "steps")
    if at.shape != (count,) or not np.isfinite(at).all() or not (np.diff(at) > 0).all():
        raise ValueError(
            f"steps must be {count} finite numbers that increase, one for each row; found shape {at.shape}"
        )
    marks = np.zeros(count) if skipped is None else as_floats(skipped, "skipped")
    if marks.shape != (count,):
        raise ValueError(f"skipped must have shape ({count},), one entry per step; found {marks.shape}")
    return _without_gaps(Recorded(at, columns, marks > 0))


def _without_gaps(record: Recorded) -> Recorded:
    """The steps that have a value, where most have none: those that were measured, and the skipped ones."""
    seen: BoolArray = np.asarray(np.isfinite(np.stack(list(record.columns.values()))).any(axis=0))
    if not seen.any() or 2 * seen.sum() >= len(seen):
        return record
    kept = seen | record.skipped
    columns = {name: values[kept] for name, values in record.columns.items()}
    return Recorded(record.steps[kept], columns, record.skipped[kept])


def check_window(window: int | None, count: int) -> int:
    """How many steps a window has: the one asked for, or so many that there are at most 100 windows."""
    if window is None:
        return max(1, -(-count // _WINDOWS))
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ValueError(f"window must be a whole number of steps, at least 1; found {window!r}")
    return window


def windowed(values: FloatArray, window: int) -> FloatArray:
    """(T,) values in rows of ``window`` consecutive steps, (W, window), filled up with NaN; inf becomes NaN."""
    rows = -(-len(values) // window)
    padded = np.full(rows * window, np.nan)
    padded[: len(values)] = np.where(np.isfinite(values), values, np.nan)
    return padded.reshape(rows, window)


def middles(steps: FloatArray, window: int) -> FloatArray:
    """The mean step of each window, (W,)."""
    mean: FloatArray = np.nanmean(windowed(steps, window), axis=1)
    return mean


def quartiles(values: FloatArray, window: int) -> FloatArray:
    """The quartiles over each window, (3, W); NaN where all of it is."""
    rows = windowed(values, window)
    present = ~np.isnan(rows).all(axis=1)
    found = np.full((3, len(rows)), np.nan)
    if present.any():
        found[:, present] = np.nanquantile(rows[present], (0.25, 0.5, 0.75), axis=1)
    return found


def draw_medians(
    ax: Axes, record: Recorded, window: int, looks: Mapping[str, Style]
) -> tuple[FloatArray, list[FloatArray]]:
    """Each column's median over windows as a line, its quartiles as a band; the windows' steps, and the medians."""
    at, medians = middles(record.steps, window), []
    for name, values in record.columns.items():
        look = looks[name]
        low, median, high = quartiles(values, window)
        line: dict[str, Any] = {"color": look.color, "linestyle": look.linestyle, "linewidth": LINE}
        ax.plot(at, median, zorder=3, label=figure_text(name), **line)
        if window > 1:
            ax.fill_between(at, low, high, color=to_rgba(look.color, BAND), linewidth=0, zorder=2)
        medians.append(median)
    return at, medians


def frame_steps(ax: Axes, record: Recorded) -> list[Line2D]:
    """The axis of steps, and a cross at the top border for each skipped one; the legend's key says how many."""
    at = record.steps[record.skipped]
    if len(at):
        place: dict[str, Any] = {"transform": ax.get_xaxis_transform(), "zorder": 5, "clip_on": False}
        ax.plot(at, np.full(len(at), 0.985), label="skipped", **place, **_SKIPPED)
    ax.set_xlim(*padded((float(record.steps[0]), float(record.steps[-1])), share=0.02))
    ax.set_xlabel("step")
    return [key(f"skipped step ({len(at)})", **_SKIPPED)] if len(at) else []


def _split(values: FloatArray, section: str, names: Any) -> dict[Any, FloatArray]:
    wanted = 3 if section == "cosines" else 2
    if values.ndim != wanted or (wanted == 3 and values.shape[1] != values.shape[2]):
        shape = "(T, K, K)" if wanted == 3 else "(T, K)"
        raise ValueError(f"{section} must be a history, a mapping or have shape {shape}; found {values.shape}")
    count = values.shape[1]
    labels = [f"loss {k}" for k in range(1, count + 1)] if names is None else list(names)
    if isinstance(names, str) or len(labels) != count:
        raise ValueError(f"names must hold {count} names, one per objective; found {names!r}")
    if section == "weights":
        return {label: values[:, k] for k, label in enumerate(labels)}
    return {(labels[i], labels[j]): values[:, i, j] for i, j in combinations(range(count), 2)}


def _name(label: Any) -> str:
    return label if isinstance(label, str) else joined(label)
