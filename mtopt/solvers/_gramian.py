"""Reading a Gramian: checks, and the diagonal scaling every solver starts with."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtopt._errors import NonFiniteError

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
Live = slice | npt.NDArray[np.intp]
"""Picks the rows that are not zero: ``slice(None)``, which copies nothing, where all are such."""


def as_array(value: torch.Tensor | npt.ArrayLike) -> Array:
    """``value`` as a float64 array on the CPU."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype != torch.float64 or not value.is_cpu:
            value = value.to("cpu", torch.float64)
        return np.asarray(value.numpy())
    return np.asarray(value, dtype=np.float64)


def as_gramian(gramian: torch.Tensor | npt.ArrayLike) -> Array:
    """``gramian`` as a float64 array, after the checks a rule would otherwise fail on obscurely.

    Raises:
        ValueError: not (K, K) with K >= 1, or with a negative diagonal.
        NonFiniteError: NaN or infinity, with the rows that hold it.
    """
    matrix = as_array(gramian)
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


def unit_rows(matrix: Array) -> tuple[Array, Array]:
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


def live_rows(matrix: Array) -> tuple[Array, Array, Live]:
    """The cosines of the rows that are not zero, the norms of all rows, and which are not zero."""
    cosines, norms = unit_rows(matrix)
    if norms.min() > 0.0:
        return cosines, norms, slice(None)
    live = np.flatnonzero(norms)
    return block(cosines, live), norms, live


def block(matrix: Array, chosen: Live) -> Array:
    """The rows and columns of ``matrix`` that are chosen."""
    return matrix if isinstance(chosen, slice) else matrix[chosen[:, None], chosen]


@functools.cache
def lapack() -> ModuleType:
    """SciPy's LAPACK, a tenth of the call of numpy's for a small matrix; imported by who needs it."""
    from scipy.linalg import lapack as module

    return module


def square_root(matrix: Array) -> Array:
    """R with ``R.T @ R == matrix`` for a positive semi-definite ``matrix`` of any rank.

    Gradients in float32 give a Gramian with an error near 1e-7, so one of deficient rank comes out slightly
    indefinite. ``R.T @ R`` is then the semi-definite matrix nearest to it, and the one to certify a solution with.
    """
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(np.sqrt(np.clip(values, 0.0, None))[:, None] * vectors.T)


def answer(weights: Array, like: Any) -> torch.Tensor:
    """``weights`` as a tensor of the dtype and device of ``like`` (float64 on the CPU when it is no tensor)."""
    result = torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float64))
    if isinstance(like, torch.Tensor) and (like.dtype != torch.float64 or not like.is_cpu):
        return result.to(like.device, like.dtype)
    return result
