"""How far a point is from Pareto-stationary: no front, no reference point, no scale of the losses' values."""

import math

import numpy as np
import torch
from numpy.typing import ArrayLike

from mtopt._errors import NonFiniteError
from mtopt._real_numbers import require_real
from mtopt.pareto._inputs import as_points

_CHUNK = 1 << 20
"""Columns of the Jacobian that are turned into float64 at a time."""


def kkt_residual(jacobian: torch.Tensor | ArrayLike, *, gramian: bool = False) -> float:
    """min over w in the simplex of ||J' w||: zero exactly where the point is Pareto-stationary.

    The length of the shortest vector in the convex hull of the gradients, MGDA's direction (Desideri 2012): no
    direction improves every objective at a rate above it. Like a gradient norm it has the units of the gradients:
    compare it between points of one problem.

    From a Jacobian it is computed as the norm of J' w itself, which keeps the precision of J next to zero. From a
    Gramian it is sqrt(w' G w), which keeps half its digits: below 1e-8 of the gradients' norms it is rounding.

    Args:
        jacobian: (K, D), the gradients in its rows; or with gramian=True the (K, K) matrix of inner products J J'.
            Constraints do not enter: at a bound, pass the columns of the free variables.
        gramian: whether `jacobian` is the Gramian.

    Raises:
        ValueError: a wrong shape, NaN or infinity, or complex numbers.
        SolverError: the weights could not be certified.
    """
    from mtopt.solvers import min_norm

    if gramian:
        matrix = as_points("jacobian", jacobian)
        if matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"jacobian must have shape (K, K) with gramian=True, found shape {matrix.shape}")
        weights, _ = min_norm(matrix)
        # Rounding can leave a tiny negative value at a stationary point.
        return math.sqrt(max(float(weights @ matrix @ weights), 0.0))

    from mtopt.linalg import gramian_of

    # The float32 or bfloat16 rows of a model stay where and what they are: only chunks are converted.
    if isinstance(jacobian, torch.Tensor):
        require_real("jacobian", jacobian)
        rows = jacobian.detach()
    else:
        rows = torch.from_numpy(as_points("jacobian", jacobian))
    if rows.ndim != 2 or rows.numel() == 0:
        raise ValueError(f"jacobian must have shape (K, D), one gradient per row, found shape {tuple(rows.shape)}")
    products = gramian_of(rows)
    bad = torch.nonzero(~products.diagonal().isfinite()).flatten().tolist()
    if bad:
        raise NonFiniteError(f"jacobian holds NaN or infinity in rows {bad}; drop the rows or skip the point")
    weights, _ = min_norm(products)
    on_device = torch.from_numpy(np.asarray(weights)).to(rows.device)
    squares = [(on_device @ chunk.double()).square().sum() for chunk in torch.split(rows, _CHUNK, dim=1)]
    return math.sqrt(float(torch.stack(squares).sum()))
