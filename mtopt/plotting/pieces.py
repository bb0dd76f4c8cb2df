"""Curves given as points: sorted, and broken where they are disconnected."""

from collections.abc import Sequence

import numpy as np

from mtopt.plotting.arrays import FloatArray

# A step along a sampled curve is a jump between two pieces when it is this many times as long as both its
# neighbours (a steep stretch lengthens the steps gradually) and no small share of the whole extent.
_JUMP = 4.0
_JUMP_SHARE = 0.04


def sorted_line(points: FloatArray) -> FloatArray:
    """The finite (N, 2) points by increasing f1, and by decreasing f2 where f1 is the same."""
    finite = points[np.isfinite(points).all(axis=1)]
    return finite[np.lexsort((-finite[:, 1], finite[:, 0]))]


def front_line(pieces: Sequence[FloatArray]) -> FloatArray:
    """The points of a front in drawing order, with a row of NaN at each break.

    Several pieces are broken between one another only; a single one is broken where it jumps.
    """
    if len(pieces) == 1:
        return broken_line(sorted_line(pieces[0]))
    gap = np.full((1, 2), np.nan)
    return np.concatenate([row for piece in pieces for row in (sorted_line(piece), gap)])[:-1]


def staircase(line: FloatArray, corner: FloatArray) -> FloatArray:
    """The border (2N + 1, 2) of what a non-dominated, sorted (N, 2) line attains, within the corner (2,).

    It comes down from the corner's height to the first point, and ends at the corner's width after the last.
    """
    twice = np.repeat(line, 2, axis=0)
    return np.stack([np.append(twice[:, 0], corner[0]), np.insert(twice[:, 1], 0, corner[1])], axis=1)


def broken_line(points: FloatArray) -> FloatArray:
    """The (N, 2) points in their own order, with a row of NaN wherever the curve jumps."""
    if len(points) < 4:
        return points
    extent = np.ptp(points, axis=0)
    steps = np.linalg.norm(np.diff(points / np.where(extent > 0, extent, 1.0), axis=0), axis=1)
    padded = np.concatenate([[0.0], steps, [0.0]])
    neighbour = np.maximum(padded[:-2], padded[2:])
    jumps = np.flatnonzero((steps > _JUMP * neighbour) & (steps > _JUMP_SHARE * np.sqrt(2)))
    return np.insert(points, jumps + 1, np.nan, axis=0)
