"""Fronts in pieces: the parts of a curve that are lower than everything to the left of them."""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_GRID = 20_001


class RecordCurve:
    """Where a smooth function on [lower, upper] takes a value below all values before it.

    With the position as one objective and the value as the other, both minimised, exactly these points are not
    dominated. They are intervals that end in a local minimum. The first holds its left end; each of the others does
    not, since there the value only equals that of the minimum before. Minima are located to 1e-8, which their values do
    not feel.

    Args:
        function: float64 arrays to float64 arrays; falls at `lower`, and has no features finer than 1e-4 of the
            interval.
        lower, upper: the ends of the interval.
    """

    def __init__(self, function: Callable[[Array], Array], lower: float, upper: float) -> None:
        self.function = function
        self.lower = lower
        self.upper = upper

    @cached_property
    def pieces(self) -> list[tuple[float, float]]:
        """The intervals, from left to right."""
        from scipy.optimize import brentq, minimize_scalar

        def value(position: float) -> float:
            return float(self.function(np.array([position]))[0])

        grid = np.linspace(self.lower, self.upper, _GRID)
        values = self.function(grid)
        pieces = []
        start, index = self.lower, 0
        while True:
            # downhill to the next local minimum
            while index + 1 < _GRID and values[index + 1] < values[index]:
                index += 1
            if index + 1 == _GRID:
                end = self.upper
            else:
                around = (grid[max(index - 1, 0)], grid[index + 1])
                found = minimize_scalar(value, bounds=around, method="bounded", options={"xatol": 1e-9})
                end = float(found.x)
            pieces.append((start, end))
            lowest = value(end)
            after = np.flatnonzero((grid > max(end, grid[index])) & (values < lowest))
            if after.size == 0:
                return pieces
            index = int(after[0])
            start = float(brentq(lambda u, level=lowest: value(u) - level, grid[index - 1], grid[index], xtol=1e-15))

    def positions(self, shares: Array) -> Array:
        """The positions that split the total length of the pieces as `shares` in [0, 1] do; 0 and 1 are the ends."""
        starts, ends = np.array(self.pieces).T
        totals = np.concatenate(([0.0], np.cumsum(ends - starts)))
        at = shares * totals[-1]
        which = self._piece_of(at, totals)
        return np.asarray(np.minimum(starts[which] + (at - totals[which]), ends[which]))

    def evenly(self, n: int) -> Array:
        """n positions, both ends included, about equally far apart along the curve."""
        parts = [np.linspace(start, end, 2001) for start, end in self.pieces]
        lengths = [np.cumsum(np.r_[0.0, np.hypot(np.diff(u), np.diff(self.function(u)))]) for u in parts]
        totals = np.cumsum([0.0] + [float(length[-1]) for length in lengths])
        at = np.linspace(0.0, totals[-1], n)
        which = self._piece_of(at, totals)
        # beyond the last of the lengths, as rounding may have it, interp gives the end
        return np.array([np.interp(s - totals[i], lengths[i], parts[i]) for s, i in zip(at, which, strict=True)])

    def integral(self, upper: float) -> float:
        """Integral from `lower` to `upper` of the lowest value up to each position; beyond the interval it stays."""
        from scipy.integrate import quad

        total = 0.0
        starts = [start for start, _ in self.pieces[1:]] + [upper]
        for (start, end), following in zip(self.pieces, starts, strict=True):
            area = quad(lambda u: float(self.function(np.array([u]))[0]), start, end, epsabs=1e-13, epsrel=1e-12)[0]
            total += float(area) + float(self.function(np.array([end]))[0]) * (following - end)
        return total

    def _piece_of(self, at: Array, totals: Array) -> npt.NDArray[np.intp]:
        # What falls on a border, to rounding, belongs to the piece that ends there: the next does not hold its start.
        borders = np.searchsorted(totals, at - 1e-9 * totals[-1], side="left")
        return np.asarray(np.clip(borders - 1, 0, len(self.pieces) - 1))
