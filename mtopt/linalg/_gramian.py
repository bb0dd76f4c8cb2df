"""Reading a Gramian: checks, and the diagonal scaling every solver starts with."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from mtopt._errors import NonFiniteError
from mtopt.linalg._arrays import Array, read_array

Live = slice | npt.NDArray[np.intp]
"""Picks the rows that are not zero: ``slice(None)``, which copies nothing, where all are such."""


def read_gramian(gramian: torch.Tensor | npt.ArrayLike) -> Array:
    """``gramian`` as a float64 array, after the checks a rule would otherwise fail on obscurely.

    Raises:
        ValueError: not (K, K) with K >= 1, or with a negative diagonal.
        NonFiniteError: NaN or infinity, with the rows that hold it.
    """
    matrix = read_array(gramian)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.shape[0] == 0:
        raise ValueError(
            f"gramian must have shape (K, K) with K >= 1, found {tuple(matrix.shape)}; "
            "a Jacobian J of shape (K, D) goes through the rule itself: combiner(J)"
        )
    if not np.isfinite(matrix).all():
        rows = sorted(set(np.nonzero(~np.isfinite(matrix).all(axis=1))[0].tolist()))
        raise NonFiniteError(f"gramian holds NaN or infinity in rows {rows}; drop the rows or skip the step")
    least = matrix.diagonal().min()
    if least < 0.0:
        raise ValueError(f"gramian has a negative diagonal ({least:.3g}): it is no matrix of inner products")
    return matrix


def normalize_gramian(matrix: Array) -> tuple[Array, Array]:
    """``matrix`` divided by its row norms on both sides, and the norms.

    This is the Gramian of the unit gradients (their cosines). A zero row stays zero. Scaling with the diagonal, and
    not with the trace, is what keeps a row that is a million times shorter than another from drowning.
    """
    norms = np.sqrt(matrix.diagonal())
    safe = norms if norms.min() > 0.0 else np.where(norms > 0.0, norms, 1.0)
    cosines = matrix / safe
    cosines /= safe[:, None]
    cosines = cosines + cosines.T
    cosines *= 0.5
    return cosines, norms


def normalize_live_rows(matrix: Array) -> tuple[Array, Array, Live]:
    """The cosines of the rows that are not zero, the norms of all rows, and which are not zero."""
    cosines, norms = normalize_gramian(matrix)
    if norms.min() > 0.0:
        return cosines, norms, slice(None)
    live = np.flatnonzero(norms)
    return take_block(cosines, live), norms, live


def take_block(matrix: Array, chosen: Live) -> Array:
    """The rows and columns of ``matrix`` that are chosen."""
    return matrix if isinstance(chosen, slice) else matrix[chosen[:, None], chosen]


def read_geometry(gramian: torch.Tensor) -> tuple[list[float], Array]:
    """Norms (K,) and cosines (K, K) from a Gramian."""
    if len(gramian) > 8:
        matrix = gramian.numpy()
        norms = np.sqrt(matrix.diagonal())
        safe = np.where(norms > 0, norms, 1.0)
        cosines = matrix / safe / safe[:, None]
        return norms.tolist(), 0.5 * (cosines + cosines.T)
    rows = gramian.tolist()  # a few numbers take Python less time than starting numpy's loops
    lengths = [math.sqrt(row[k]) for k, row in enumerate(rows)]
    whole = [length or 1.0 for length in lengths]
    return lengths, np.array(
        [[0.5 * (rows[i][j] + rows[j][i]) / a / b for j, b in enumerate(whole)] for i, a in enumerate(whole)]
    )


def average_norms(norms: Array) -> float:
    """The geometric mean of the norms that are not zero, 1 if there are none: the unit least far from all of them."""
    live = norms[norms > 0.0]
    return float(np.exp(np.log(live).mean())) if len(live) else 1.0
