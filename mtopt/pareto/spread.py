"""How evenly a set of points is spread."""

from typing import Literal

import numpy as np

from mtopt.pareto._inputs import Points, as_points


def spacing(points: Points, *, norm: Literal["l1", "l2"] = "l1") -> float:
    """Standard deviation of the distances from each point to its nearest other point; 0 where evenly spread.

    sqrt(mean_i (d_i - mean d)^2), d_i the distance of point i to the nearest other one. Schott (1995) takes the L1
    norm and divides by N - 1; the division by N here is the one of later code (pymoo). norm="l2" is another
    definition in use (libmoon, which reports 100 times it). It says nothing of nearness to the front, and all points
    given count, the dominated ones too: take `points[is_nondominated(points)]` first.

    Args:
        points: (N, K), N >= 2.
        norm: of the distances, "l1" or "l2".

    Raises:
        ValueError: fewer than two points, a wrong shape, NaN or infinity, or an unknown norm.
    """
    if norm not in ("l1", "l2"):
        raise ValueError(f"norm must be 'l1' or 'l2', found {norm!r}")
    array = as_points("points", points)
    if len(array) < 2:
        raise ValueError(f"points must hold at least two points for a spacing, found shape {array.shape}")
    from scipy.spatial import KDTree

    # A copy is as near as can be; and a tree of many copies cannot be cut, and would look at all of them for each.
    distinct, counts = np.unique(array, axis=0, return_counts=True)
    nearest = np.zeros(len(distinct))
    single = counts == 1
    if single.any():
        # the nearest is the point itself: the second is the one to take
        found, _ = KDTree(distinct).query(distinct[single], k=[2], p=1 if norm == "l1" else 2)
        nearest[single] = np.asarray(found)[:, 0]
    return float(np.std(np.repeat(nearest, counts)))


def sparsity(points: Points) -> float:
    """Mean squared gap along the front: 1/(N-1) sum over objectives k and i of (s_k,i+1 - s_k,i)^2.

    s_k are the k-th objectives of the N non-dominated points in order; dominated points and copies do not count. Zero
    for a single point, which is no merit: read it beside `hypervolume`. Scale the objectives first if their ranges
    differ. (Xu et al., "Prediction-guided multi-objective reinforcement learning for continuous robot control", 2020.)

    Args:
        points: (N, K), minimised.

    Raises:
        ValueError: `points` is empty, not (N, K), or holds NaN or infinity.
    """
    import moocore

    array = np.unique(moocore.filter_dominated(as_points("points", points)), axis=0)
    if len(array) == 1:
        return 0.0
    gaps = np.diff(np.sort(array, axis=0), axis=0)
    return float(np.square(gaps).sum() / (len(array) - 1))
