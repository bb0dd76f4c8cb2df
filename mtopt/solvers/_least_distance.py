"""The smallest change of a vector that meets a demand on every gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mtopt.linalg import DOUBLE_PRECISION, Array, Precision, take_semidefinite_root
from mtopt.solvers._certificate import Certificate, certify
from mtopt.solvers._nonnegative import nonnegative


def least_distance(
    cosines: Array, demands: Array, precision: Precision = DOUBLE_PRECISION
) -> tuple[Array | None, Certificate]:
    """x >= 0 with ``z = sum_k x_k u_k`` the shortest vector such that ``u_k . z >= h_k`` for every unit gradient u_k.

    Least-distance programming by non-negative least squares: with u solving ``min_{u >= 0} || [R; h'] u - [0; 1] ||``,
    ``R' R = C``, the answer is ``x = u / (1 - h' u)``, and the demands are incompatible exactly where the residual
    vanishes (Lawson and Hanson, 1974, chapter 23).

    Where gradients depend on each other, demands are lowered by as much as projections are known to, so that those on
    opposite gradients which are just met ask for nothing along the rounding that keeps these apart; and they are
    incompatible where they can be met along it only.

    Args:
        cosines: C, (K, K), of gradients that are not zero.
        demands: h, (K,).
        precision: of the gradients and their cosines.

    Returns:
        x, or None where no z meets the demands, and the certificate: ``residual`` is the largest violation of a
        demand, or of its equality where ``x_k > 0``, over ``max |h|`` or ``||z||``, the larger of them, what the
        cosines leave open included; ``gap`` is that of the duality over ``z . z``.

    Raises:
        SolverError: the violation is more than 1e-10 above what is left open.
    """
    largest = float(demands.max(initial=0.0))
    if largest <= 0.0:
        return np.zeros_like(demands), Certificate(0.0, 0.0, "demands met")
    if len(demands) == 1:
        return demands.copy(), Certificate(0.0, 0.0, "closed form")
    root, cosines = take_semidefinite_root(cosines)
    unit = np.abs(demands).max()
    share = precision.rank_share(len(demands))
    lowered = 2.0 * precision.linear if _dependent(root, share) else 0.0
    wanted = demands / unit - lowered
    target = np.zeros(len(root) + 1)
    target[-1] = 1.0
    stacked = np.concatenate((root, wanted[None]))
    unscaled = nonnegative(cosines + wanted * wanted[:, None], stacked, target)
    distance = 1.0 - float(wanted.dot(unscaled))
    products = cosines.dot(unscaled)
    moduli = float(unscaled.sum())
    # 1 - h'u is the squared length of what is left of [0; 1], and R u that of the combination
    if distance <= share or float(unscaled.dot(products)) <= share * moduli**2:
        if moduli == 0.0:  # no demand is left
            return np.zeros_like(demands), Certificate(lowered, 0.0, "demands met")
        return None, Certificate(0.0, None, "incompatible demands")
    scaled, products, moduli = unscaled / distance, products / distance, moduli / distance
    slopes = products - wanted
    violation = max(float(np.where(scaled > 0.0, np.abs(slopes), -slopes).max()), 0.0)
    squared = float(scaled.dot(products))
    size = max(1.0, math.sqrt(squared))
    hidden = precision.products * moduli
    gap = float(abs(scaled.dot(slopes))) / squared
    found = certify("the least-distance program", violation, hidden, size, gap, "nnls", excused=16.0 * hidden)
    return scaled * unit, replace(found, residual=found.residual + lowered)


def _dependent(root: Array, share: float) -> bool:
    """Whether a unit gradient is in the span of the others, as far as is known; ``root`` is that of the cosines."""
    values = np.linalg.svd(root, compute_uv=False)
    return bool(values[-1] ** 2 <= share * values[0] ** 2)
