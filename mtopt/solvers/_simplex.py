"""Euclidean projection on the probability simplex."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from mtopt.linalg import Array, read_array


def project_simplex(point: torch.Tensor | npt.ArrayLike) -> Array:
    """The point of ``{w >= 0, sum(w) = 1}`` nearest to ``point`` (K,), exactly, in K log K operations.

    ``w_i = max(p_i - tau, 0)`` with the one ``tau`` that makes the sum 1, found from the sorted entries
    (Held, Wolfe and Crowder, 1974).
    """
    values = read_array(point)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"point must be a finite vector, found {values!r}")
    values = values - values.max()  # the projection does not see a common shift; this keeps large values exact
    descending = np.sort(values)[::-1]
    thresholds = (np.cumsum(descending) - 1.0) / np.arange(1, len(values) + 1)
    tau = thresholds[np.nonzero(descending > thresholds)[0][-1]]
    return np.asarray(np.maximum(values - tau, 0.0))
