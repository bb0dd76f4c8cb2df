"""R2: how good a set is for whoever minimises a weighted Chebyshev distance, on average over the weights."""

from mtopt.pareto._inputs import Points, Vector, as_points, as_vector


def r2(points: Points, ideal: Vector, weights: Points | None = None) -> float:
    """Mean over preferences w of min over a in `points` of max_k w_k (a_k - ideal_k). Smaller is better.

    Weakly Pareto-compliant where `ideal` is not worse than any point. The mean is over `weights`; without them, for two
    objectives, over the uniform distribution on the simplex, exactly.

    Args:
        points: (N, K), minimised.
        ideal: (K,), the best that each objective may reach, or below.
        weights: (M, K), non-negative, from `uniform_preferences` for example. Needed for K != 2.

    Raises:
        ValueError: a wrong shape, NaN or infinity, a point that is better than `ideal` somewhere, a negative weight, or
            no weights where K != 2.

    (Hansen and Jaszkiewicz 1998; the exact mean for two objectives: Schaepermeier and Kerschke 2025.)
    """
    array = as_points("points", points)
    best = as_vector("ideal", ideal, array.shape[1], "objective of points")
    gaps = array - best
    if (gaps < 0).any():
        raise ValueError(f"ideal must not be worse than any point in any objective, found {best.tolist()}")
    if weights is None:
        if array.shape[1] != 2:
            raise ValueError(f"weights are needed for {array.shape[1]} objectives: the exact mean is known for two")
        import moocore

        return float(moocore.r2_exact(array, ref=best))
    rows = as_points("weights", weights)
    if rows.shape[1] != array.shape[1]:
        raise ValueError(f"weights must have shape (M, {array.shape[1]}), found {rows.shape}")
    if (rows < 0).any():
        raise ValueError("weights must be non-negative")
    # a row of weights at a time: N x K numbers, whatever M
    return float(sum((row * gaps).max(axis=1).min() for row in rows) / len(rows))
