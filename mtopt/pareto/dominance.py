"""Pareto dominance, and the volume that a set dominates."""

import numpy as np
import torch
from numpy.typing import NDArray

from mtopt.pareto._inputs import Points, Vector, as_points, as_vector

Array = NDArray[np.float64]


def is_nondominated(points: Points) -> torch.Tensor:
    """Which points no other point dominates, (N,) bool on the CPU.

    a dominates b when a <= b in every objective and a < b in one. Equal points do not dominate each other: all copies
    of a non-dominated point are kept.

    Args:
        points: (N, K), minimised.

    Raises:
        ValueError: `points` is empty, not (N, K), or holds NaN or infinity.
    """
    import moocore

    return torch.from_numpy(moocore.is_nondominated(as_points("points", points), keep_weakly=True))


def hypervolume(points: Points, reference: Vector) -> float:
    """Volume of the region that `points` dominate and that dominates `reference`.

    The Lebesgue measure of the union over the points p of the boxes [p, reference]. Larger is better. A point that is
    not below the reference in every objective adds nothing, so 0.0 means that no point is. Exact, in any number of
    objectives up to 31: O(N log N) for K <= 3, O(N^2) for 4, exponential in K beyond. (Zitzler and Thiele 1998.)

    Args:
        points: (N, K), minimised.
        reference: (K,), the point to measure from; worse than every point of interest.

    Raises:
        ValueError: `points` or `reference` has a wrong shape, is empty, or holds NaN or infinity.
    """
    import moocore

    array = as_points("points", points)
    corner = as_vector("reference", reference, array.shape[1], "objective of points")
    return float(moocore.hypervolume(array, ref=corner))


def hypervolume_contributions(points: Points, reference: Vector) -> torch.Tensor:
    """What the hypervolume loses when a point is taken away, (N,) float64: HV(points) - HV(points without it).

    The contributions are those within the non-dominated points: a dominated point counts nowhere, even where it would
    cover part of what the point above it leaves. Dominated points, copies of another point and points not below
    `reference` contribute zero.

    Args:
        points: (N, K), minimised.
        reference: (K,), the point to measure from.

    Raises:
        ValueError: `points` or `reference` has a wrong shape, is empty, or holds NaN or infinity.
    """
    import moocore

    array = as_points("points", points)
    corner = as_vector("reference", reference, array.shape[1], "objective of points")
    if array.shape[1] == 1:  # moocore wants two objectives: a second one in which all are equal changes nothing
        array, corner = np.pad(array, ((0, 0), (0, 1))), np.append(corner, 1.0)
    if array.shape[1] <= 3:
        return torch.from_numpy(moocore.hv_contributions(array, ref=corner))
    found = np.zeros(len(array))
    counted = np.flatnonzero(moocore.is_nondominated(array, keep_weakly=True) & (array < corner).all(axis=1))
    for place, index in enumerate(counted):
        found[index] = exclusive_volume(array[index], array[np.delete(counted, place)], corner)
    return torch.from_numpy(found)


def exclusive_volume(point: Array, others: Array, corner: Array) -> float:
    """The volume between ``point`` (K,), which is below ``corner``, and that corner that none of ``others`` dominates.

    In units of the point's own box: a share of it is not lost beside the volume of all, nor in small units.
    """
    import moocore

    sides = corner - point
    if len(others) == 0 or not (sides > 0).all():
        return float(np.prod(sides))
    # what the others cover of the box is what they cover once they are moved into it
    within = (np.maximum(others, point) - corner) / sides
    return float(np.prod(sides)) * max(1.0 - float(moocore.hypervolume(within, ref=np.zeros(len(sides)))), 0.0)
