"""Choosing among non-dominated points: knees, pseudo-weights, achievement scalarizing functions; a reference point."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from mtopt.pareto._inputs import Points, Vector, as_points, as_vector

Array = NDArray[np.float64]

_RHO = 1e-6
"""How much the sum counts in the achievement function beside the worst objective: enough to break ties."""


def ideal_and_nadir(points: Array) -> tuple[Array, Array]:
    """The best and the worst value of each objective among non-dominated ``points``."""
    return points.min(axis=0), points.max(axis=0)


def scaled(points: Array) -> Array:
    """Each objective from 0, the best, to 1, the worst; 0 where all are equal."""
    ideal, nadir = ideal_and_nadir(points)
    extent = nadir - ideal
    return np.asarray((points - ideal) / np.where(extent > 0, extent, 1.0))


def pseudo_weights(points: Points) -> torch.Tensor:
    """How far each point goes for each objective, (N, K), rows non-negative and summing to one.

    ``w_k = (max_k - f_k) / (max_k - min_k)`` over its sum, with the largest and smallest value of each objective among
    the points: a point that is best in objective k and worst in all others has weight 1 there. (Deb 2001, section 9.6.)

    Args:
        points: (N, K), non-dominated, minimised.
    """
    array = as_points("points", points)
    good = 1.0 - scaled(array)
    total = good.sum(axis=1, keepdims=True)
    return torch.from_numpy(np.where(total > 0, good / np.where(total > 0, total, 1.0), 1.0 / array.shape[1]))


def tradeoffs(points: Points) -> torch.Tensor:
    """What a move away from each point costs at least, for one unit that it gains, (N,); large at a knee.

    ``mu_i = min_j sum_k max(f_jk - f_ik, 0) / sum_k max(f_ik - f_jk, 0)`` over the other points, each objective scaled
    to its range; infinite for a point from which no move gains anything. (Rachmawati and Srinivasan 2009.)

    Args:
        points: (N, K), non-dominated, minimised.
    """
    array = scaled(as_points("points", points))
    moves = array[None, :, :] - array[:, None, :]  # from i to j
    loss, gain = np.maximum(moves, 0).sum(axis=2), np.maximum(-moves, 0).sum(axis=2)
    rates = np.where(gain > 0, loss / np.where(gain > 0, gain, 1.0), np.inf)
    return torch.from_numpy(rates.min(axis=1))


def bulges(points: Points) -> torch.Tensor:
    """How far each point lies before the hyperplane through the best points of the objectives, (N,); most at a knee.

    Each objective scaled to its range, in which that plane is ``sum_k f_k = const`` for two objectives. For more it is
    the one through the K points that are best in an objective each, or, where these do not span one,
    ``sum_k f_k = 1``. (Das 1999: the point of maximum bulge.)

    Args:
        points: (N, K), non-dominated, minimised.
    """
    array = scaled(as_points("points", points))
    corners = array[array.argmin(axis=0)]
    count = array.shape[1]
    normal, offset = np.ones(count), 1.0
    if np.linalg.matrix_rank(corners - corners[0], tol=1e-9) == count - 1:
        _, _, axes = np.linalg.svd(corners[1:] - corners[0])
        if (axes[-1] > 1e-9).all() or (axes[-1] < -1e-9).all():
            normal = np.abs(axes[-1])
            offset = float(normal @ corners[0])
    return torch.from_numpy((offset - array @ normal) / np.linalg.norm(normal))


def achievement(points: Points, aspiration: Vector, scale: Vector) -> torch.Tensor:
    """The achievement scalarizing function of each point, (N,); its minimiser is the point nearest to what is wished.

    ``max_k (f_k - a_k) / s_k + rho sum_k (f_k - a_k) / s_k`` with rho = 1e-6. The minimum is a Pareto-optimal point,
    whether the aspiration can be reached or not. (Wierzbicki 1980.)

    Args:
        points: (N, K), minimised.
        aspiration: (K,), the values one would like.
        scale: (K,), positive: what counts as one unit of each objective.
    """
    array = as_points("points", points)
    wish = as_vector("aspiration", aspiration, array.shape[1], "objective of points")
    unit = as_vector("scale", scale, array.shape[1], "objective of points")
    if not (unit > 0).all():
        raise ValueError(f"scale must be positive, found {unit.tolist()}")
    missed = (array - wish) / unit
    return torch.from_numpy(missed.max(axis=1) + _RHO * missed.sum(axis=1))


def suggest_reference(points: Points) -> torch.Tensor:
    """A reference point (K,) for the hypervolume of fronts of about as many points.

    ``nadir + (nadir - ideal) / H``, with the worst and the best values of the non-dominated points and the largest H
    for which a lattice of ``C(H + K - 1, K - 1)`` points is no more than N: then the ends of an evenly spaced linear
    front count as much as the points between them. For two objectives H is N - 1. (Ishibuchi, Imada, Setoguchi and
    Nojima 2018.) An objective in which all are equal gets a tenth of its size, or 0.1.

    Measure all fronts that are compared from one point: that of the union of their points.

    Args:
        points: (N, K), minimised.
    """
    from mtopt.pareto.dominance import is_nondominated

    array = as_points("points", points)
    front = np.unique(array[is_nondominated(array).numpy()], axis=0)
    count, size = array.shape[1], 1
    while math.comb(size + 1 + count - 1, count - 1) <= len(front) and size < len(front):
        size += 1
    ideal, nadir = ideal_and_nadir(front)
    extent = nadir - ideal
    flat = np.where(nadir != 0, 0.1 * np.abs(nadir), 0.1)
    return torch.from_numpy(nadir + np.where(extent > 0, extent / size, flat))
