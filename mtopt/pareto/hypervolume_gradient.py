"""How a set of points has to move for its hypervolume to grow."""

import numpy as np
import torch
from numpy.typing import NDArray

from mtopt.pareto._inputs import Points, Vector, as_points, as_vector
from mtopt.pareto.dominance import Array, exclusive_volume


def hypervolume_weights(
    points: Points,
    reference: Vector,
    *,
    fronts: bool = True,
    normalize: bool = True,
    stretch: float = 1.1,
) -> torch.Tensor:
    """Weights ``w[i, k] = - d HV / d points[i, k]``: descent on ``sum_k w[i, k] f_k(x_i)`` is ascent on hypervolume.

    The derivative is exact in any number of objectives: it is the (K-1)-dimensional volume of the face that point i
    alone dominates at its value of objective k, so that moving by ``-e`` adds ``w e``. For two objectives sorted by
    the first these are the well-known differences to the neighbours, ``w[i, 0] = f2[i-1] - f2[i]`` and
    ``w[i, 1] = f1[i+1] - f1[i]``, with the reference point beyond both ends. Where two points tie in an objective the
    hypervolume has a kink; the derivative is that of an improvement.

    A dominated point adds no hypervolume and would stay where it is. With ``fronts`` the points are split into layers
    by non-dominated sorting, and each layer is weighted as if it were alone, so that all points move. A point beyond
    the reference point would stay, too; hence the reference moves away where it must, in each objective to
    ``worst + (stretch - 1) |worst|`` if that is further, ``worst`` being the largest value among the points.

    Emmerich, Deutz and Beume 2007 (the gradient); Wang, Deutz, Baeck and Emmerich 2017 (layers and normalisation);
    Deist, Grewal, Dankers, Alderliesten and Bosman 2021 (networks).

    Args:
        points: (N, K) objective values, minimised, K >= 2.
        reference: (K,), worse than what the points are to reach; the ends of the front are drawn out by it.
        fronts: weight the layers of non-dominated sorting one by one. With False, dominated points get zeros.
        normalize: scale the weights of each point to the Euclidean norm 1. Points in dense parts of a front then move
            as fast as those in sparse parts, at the price that the steps no longer get shorter towards the optimum:
            let the learning rate decay. With False, the gradient itself; a point with no volume of its own (a copy of
            another one with K > 2, or on the rim of the reference) has zero weights either way.
        stretch: how far beyond the worst values the reference moves, > 1.

    Returns:
        (N, K) float64 on the CPU, non-negative. Costs O(N^2) for K = 2, and N K hypervolumes of K-1 objectives beyond.

    Raises:
        ValueError: a wrong shape, one objective, ``stretch`` not above one, or NaN or infinity (NonFiniteError).
    """
    array = as_points("points", points)
    count = array.shape[1]
    if count < 2:
        raise ValueError("points must have at least two objectives, found one; minimise it directly")
    if not stretch > 1:
        raise ValueError(f"stretch must be above 1, found {stretch}: it is what points at the rim gain by improving")
    corner = as_vector("reference", reference, count, "objective of points")
    worst = array.max(axis=0)
    corner = np.maximum(corner, worst + (stretch - 1) * np.abs(worst))
    weights = np.zeros_like(array)
    for layer in _layers(array, fronts):
        weights[layer] = _faces(array[layer], corner)
    if normalize:
        lengths = np.linalg.norm(weights, axis=1, keepdims=True)
        weights = np.divide(weights, lengths, out=weights, where=lengths > 0)
    return torch.from_numpy(weights)


def _layers(points: Array, every: bool) -> list[NDArray[np.intp]]:
    import moocore

    # A point that is ahead of another one by rounding alone would get weights that point nowhere: it counts as equal.
    extent = np.ptp(points, axis=0)
    ranks = moocore.pareto_rank(np.round((points - points.min(axis=0)) / np.where(extent > 0, extent, 1.0), 12))
    return [np.flatnonzero(ranks == rank) for rank in range(int(ranks.max()) + 1 if every else 1)]


def _faces(points: Array, corner: Array) -> Array:
    """The face of each point in each objective: what it covers of the slice at its value, and no better point does."""
    faces = np.empty_like(points)
    for k in range(points.shape[1]):
        others, rim = np.delete(points, k, axis=1), np.delete(corner, k)
        before = points[:, k] < points[:, k, None]  # row i: those that cover the slice which point i moves into
        if len(rim) == 1:
            ends = np.where(before, np.maximum(others.T, others), rim)
            faces[:, k] = np.minimum(ends.min(axis=1), rim) - others[:, 0]
        else:
            faces[:, k] = [exclusive_volume(others[i], others[before[i]], rim) for i in range(len(points))]
    return faces
