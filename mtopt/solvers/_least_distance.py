"""The smallest change of a vector that meets a demand on every gradient."""

from __future__ import annotations

import numpy as np

from mtopt.solvers._certificate import Certificate
from mtopt.solvers._gramian import Array
from mtopt.solvers._nonnegative import nonnegative, semidefinite_root

_INCOMPATIBLE = 1e-13
"""Squared distance, K times over, below which a demand of length one is unreachable but for rounding."""


def least_distance(cosines: Array, demands: Array) -> tuple[Array | None, Certificate]:
    """x >= 0 with ``z = sum_k x_k u_k`` the shortest vector such that ``u_k . z >= h_k`` for every unit gradient u_k.

    Least-distance programming by non-negative least squares: with u solving ``min_{u >= 0} || [R; h'] u - [0; 1] ||``,
    ``R' R = C``, the answer is ``x = u / (1 - h' u)``, and the demands are incompatible exactly where the residual
    vanishes (Lawson and Hanson, 1974, chapter 23).

    Args:
        cosines: C, (K, K), of gradients that are not zero.
        demands: h, (K,).

    Returns:
        x, or None where no z meets the demands, and the certificate: ``residual`` is the largest violation of a
        demand, or of its equality where ``x_k > 0``, over ``max |h| + sum(x)``; ``gap`` is that of the duality over
        ``z . z``.

    Raises:
        SolverError: the residual is above 1e-10.
    """
    largest = float(demands.max(initial=0.0))
    if largest <= 0.0:
        return np.zeros_like(demands), Certificate(0.0, 0.0, "demands met")
    if len(demands) == 1:
        return demands.copy(), Certificate(0.0, 0.0, "closed form")
    root, cosines = semidefinite_root(cosines)
    unit = np.abs(demands).max()
    wanted = demands / unit
    target = np.zeros(len(root) + 1)
    target[-1] = 1.0
    stacked = np.concatenate((root, wanted[None]))
    found = nonnegative(cosines + wanted * wanted[:, None], stacked, target)
    distance = 1.0 - float(wanted.dot(found))
    if distance <= _INCOMPATIBLE * len(wanted):
        return None, Certificate(0.0, None, "incompatible demands")
    scaled = found / distance
    products = cosines.dot(scaled)
    slopes = products - wanted
    violation = np.where(scaled > 0.0, np.abs(slopes), -slopes)
    certificate = Certificate(
        residual=float(max(violation.max(), 0.0) / (1.0 + scaled.sum())),
        gap=float(abs(scaled.dot(slopes)) / scaled.dot(products)),
        method="nnls",
    )
    certificate.require("the least-distance program")
    return scaled * unit, certificate
