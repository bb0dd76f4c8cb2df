"""The scale of a learning rate of which nothing is known: a line search by powers along one step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mtopt.training.gen._fit import Parabola

FARTHEST = 10.0
"""Where one parabola may send the next probe: this factor from where it was measured."""

LEAP = 4.0
"""The factor when there is no parabola to follow."""

MOST_PROBES = 16


@dataclass(frozen=True, slots=True)
class Found:
    """Where the search ended.

    Attributes:
        scale: the rate found, in units of the starting one.
        parabola: the last that was measured.
        probed: the scale at which.
        count: probes in all.
    """

    scale: float
    parabola: Parabola
    probed: float
    count: int


def search_scale(measure: Callable[[float], Parabola], start: float) -> Found:
    """Find the scale s at which the parabola measured at s has its lowest point within a factor 2 of s.

    From a scale at which the loss rises the search goes down, from any other it goes up: to the lowest point where the
    parabola has one, by at most ``FARTHEST``, and by ``LEAP`` where it has none. Once there is a scale of each kind it
    stays between them. When they are within a factor 2 and no parabola is accepted, the answer is the largest scale at
    which the loss was seen to fall. When it was seen only to rise, the direction is to blame and not the rate: the
    answer is ``start``, halved if the loss rises there.
    """
    scale, falls, below, rises = start, 0.0, 0.0, math.inf
    first: Parabola | None = None
    for count in range(1, MOST_PROBES + 1):
        parabola = measure(scale)
        first = first or parabola
        optimum = parabola.optimum
        if not parabola.measured:
            return Found(start, parabola, scale, count)
        if optimum is not None and 0.5 <= optimum <= 2.0:
            return Found(scale * optimum, parabola, scale, count)
        if parabola.rises:
            rises = min(rises, scale)
            factor = 1 / LEAP if optimum is None or optimum > 1 else max(optimum, 1 / FARTHEST)
        else:
            below = max(below, scale)
            falls = max(falls, scale) if parabola.falls else falls
            factor = LEAP if optimum is None or optimum < 1 else min(optimum, FARTHEST)
        probed = scale
        if rises <= 2.0 * below:
            break
        scale *= factor
        if not below < scale < rises:
            scale = math.sqrt(below * rises)
    assert first is not None
    if falls > 0 or rises == math.inf:  # all the way up there was nothing to see: go on from there
        return Found(falls or below, parabola, probed, count)
    return Found(start / 2 if first.rises else start, parabola, probed, count)
