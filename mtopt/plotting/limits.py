"""Axis limits that one diverged rule cannot blow up."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from mtopt.plotting.arrays import FloatArray, as_floats

# Values are left out of view when the core, the shortest interval that holds most of them, fills less than a
# quarter of the axis; then what lies further from the core than three times its width is.
_SQUASH = 4.0
# The share of all values, every rule counting the same, that may lie outside the core.
_OUTSIDE = 0.35
_OUTSIDE_WITH_ANCHOR = 0.5
# Rules that end at one point up to noise make no core: its width is at least this share of its values.
_LEAST_WIDTH = 0.05
# The width of the margin where points out of view are shown, as a share of what is in view.
_GUTTER = 0.1

Interval = tuple[float, float]
Limits = Literal["robust", "all"] | Sequence[Interval]


def given_limits(limits: Limits, dimensions: int) -> list[Interval] | None:
    """The limits a caller asked for in numbers, one ``(low, high)`` an axis, or None for a known word."""
    if isinstance(limits, str):
        if limits not in ("robust", "all"):
            raise ValueError(f"limits must be 'robust', 'all' or one (low, high) an axis; found {limits!r}")
        return None
    pairs = as_floats(limits, "limits")
    if pairs.shape != (dimensions, 2) or not (pairs[:, 0] < pairs[:, 1]).all():
        raise ValueError(f"limits must hold {dimensions} pairs (low, high) with low < high; found {limits!r}")
    return [(float(low), float(high)) for low, high in pairs]


def full_interval(values: FloatArray) -> Interval:
    """From the smallest to the largest finite value of (N,); ``(0, 1)`` when there is none."""
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)


def robust_interval(groups: Sequence[FloatArray], anchor: FloatArray | None = None) -> Interval:
    """The interval of one axis to show: all the values, or without a tail that would squash the rest.

    Args:
        groups: for each rule its values along the axis, (N,); non-finite ones are ignored.
        anchor: values that are always in view (a true front, say), (A,). With an anchor more may be left out,
            since the region of interest is known.

    Returns:
        ``(low, high)``, equal when there is a single value, and ``(0, 1)`` when there is none.
    """
    kept = [group[np.isfinite(group)] for group in groups]
    kept = [group for group in kept if len(group)]
    fixed = np.empty(0) if anchor is None else anchor[np.isfinite(anchor)]
    if not kept and not len(fixed):
        return 0.0, 1.0
    values = np.concatenate([*kept, fixed])
    weights = np.concatenate([*(np.full(len(g), 1 / len(g) / len(kept)) for g in kept), np.zeros(len(fixed))])
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    scale = float(np.abs(values).max()) or 1.0  # so that no difference overflows
    scaled = values / scale
    low, high = _core(scaled, weights, fixed / scale)
    width = high - low
    if width == 0:
        return float(values[0]), float(values[-1])
    width = max(width, _LEAST_WIDTH * max(abs(low), abs(high)))
    if scaled[-1] - scaled[0] <= _SQUASH * width:
        return float(values[0]), float(values[-1])
    reach = (_SQUASH - 1) * width
    shown = values[(scaled >= low - reach) & (scaled <= high + reach)]
    return float(shown[0]), float(shown[-1])


def _core(values: FloatArray, weights: FloatArray, anchor: FloatArray) -> Interval:
    """The shortest interval that holds the anchor and most of the sorted, weighted ``values``."""
    upto = np.concatenate([[0.0], np.cumsum(weights)])
    need = (1 - (_OUTSIDE_WITH_ANCHOR if len(anchor) else _OUTSIDE)) * upto[-1]
    # The first end from each start that holds enough; the tolerance is for sums of 1/n.
    ends = np.searchsorted(upto, upto[:-1] + need - 1e-9)
    starts = np.flatnonzero(ends <= len(values))
    lows, highs = values[starts], values[np.maximum(ends[starts] - 1, starts)]
    if len(anchor):
        lows, highs = np.minimum(lows, anchor.min()), np.maximum(highs, anchor.max())
    best = int(np.argmin(highs - lows))
    return float(lows[best]), float(highs[best])


def padded(interval: Interval, values: FloatArray | None = None, share: float = 0.06) -> Interval:
    """``interval`` with a margin on both sides, never of zero width.

    A side beyond which some of ``values`` lie gets a wider margin, where they are shown without covering others.
    """
    low, high = interval
    span = high - low
    # Below this width ticks can no longer be told apart in float64.
    if span <= max(1e-12 * max(abs(low), abs(high)), float(np.finfo(np.float64).tiny)):
        half = 0.1 * abs(low) or 1.0
        return low - half, high + half
    below, above = share, share
    if values is not None:
        below += _GUTTER * bool((values < low - share * span).any())
        above += _GUTTER * bool((values > high + share * span).any())
    return low - below * span, high + above * span


def limits_of_points(
    limits: Limits,
    points: Mapping[str, Sequence[FloatArray]],
    centres: Mapping[str, FloatArray],
    front: Sequence[FloatArray],
    reference: FloatArray | None,
) -> list[Interval]:
    """One interval an axis."""
    every = np.concatenate([*centres.values(), *(p for parts in points.values() for p in parts), *front])
    dimensions = every.shape[1]
    chosen = given_limits(limits, dimensions)
    if chosen is not None:
        return chosen
    if reference is not None:
        every = np.concatenate([every, reference])
    if limits == "all":
        return [padded(full_interval(every[:, column])) for column in range(dimensions)]
    finite = every[np.isfinite(every).all(axis=1)]
    intervals = []
    for column in range(dimensions):
        groups = [np.concatenate([centres[name], *points[name]])[:, column] for name in points]
        anchor = np.concatenate(front)[:, column] if front else None
        low, high = robust_interval(groups, anchor)
        if reference is not None:
            # The reference widens the view unless it is so far off that it would squash the data itself.
            shown = np.array([low, high])
            low, high = robust_interval([shown, reference[:, column]], anchor=shown)
        intervals.append(padded((low, high), finite[:, column]))
    return intervals
