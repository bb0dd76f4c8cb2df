"""EPO's two linear programs: towards the ray of the preference, and along it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mtopt._errors import SolverError
from mtopt.linalg import Array, Precision, average_norms, normalize_gramian, take_semidefinite_root
from mtopt.solvers._certificate import Certificate
from mtopt.solvers._linear_program import LOOSENING, maximise_linear

Solved = tuple[Array | None, Certificate]


def balance_or_descend(
    matrix: Array,
    anchor: Array,
    largest: npt.NDArray[np.bool_] | None,
    precision: Precision,
    *,
    relax: bool,
) -> tuple[Array, Certificate]:
    """The weights of EPO's step, non-negative with the sum 1; with ``c = G a`` the rates of the anchoring direction.

    Balance: the largest ``w . c`` under ``(G w)_k >= 0`` for the largest losses and ``(G w)_k >= c_k`` for the others
    with ``c_k <= 0``; under ``G w >= 0`` where no ``c_k`` is positive. Descent: the largest ``sum_k (G w)_k`` under
    ``G w >= 0`` and, unless ``relax``, ``w . c >= min(0, max_k c_k)``, or the largest ``w . c`` there is.

    Args:
        matrix: (K, K) inner products.
        anchor: a, (K,).
        largest: which losses are the largest, (K,), in balance; None for descent.
        precision: which rates can be told from rounding.
        relax: no balance in the descent.

    Returns:
        The weights (K,) and the certificate, whose ``method`` names the program.

    Raises:
        SolverError: not solved to 1e-10, or no solution.
    """
    # in unit gradients, v = s w: rows of any length have entries of one size
    cosines, norms = normalize_gramian(matrix)
    live = norms > 0.0
    if not live.any():
        return np.full(len(norms), 1.0 / len(norms)), Certificate(0.0, 0.0, "zero rows")
    cosines = take_semidefinite_root(cosines)[1]
    lengths = np.where(live, norms / average_norms(norms), 1.0)
    rates = _rates(cosines, np.where(live, lengths * anchor, 0.0), precision)
    falls = cosines + LOOSENING * live  # (G w)_k / s_k
    if largest is None:
        found = _descent(cosines @ (live * lengths), falls[live], rates, np.where(live, lengths, 0.0), lengths, relax)
    else:
        helped = rates > 0.0
        bounds = np.where(largest, 0.0, rates) if helped.any() else np.zeros_like(rates)
        kept = live & (largest | ~helped)
        found = _best(rates, falls[kept], bounds[kept], lengths, "balance")
    weights, certificate = found
    if weights is None:
        raise SolverError(
            "EPO's linear program has no solution, which it has for every positive semi-definite Gramian; compute the "
            "Gramian in float64"
        )
    return weights, certificate


def _best(objective: Array, rows: Array, bounds: Array, lengths: Array, name: str) -> Solved:
    """The w with the largest ``objective . v``, ``rows v >= bounds``, ``v = s w``; None where there are none."""
    found, solved = maximise_linear(objective, rows, bounds, 1.0 / lengths)
    certificate = Certificate(solved.residual, solved.gap, f"{name}, {solved.method}")
    if found is None:
        return None, certificate
    weights = found / lengths
    return weights / weights.sum(), certificate


def _rates(cosines: Array, terms: Array, precision: Precision) -> Array:
    """``c_k / s_k``, the rates of the anchoring direction; zero where they cannot be told from it."""
    rates = cosines @ terms
    rounding = len(terms) * precision.products * (np.abs(cosines) @ np.abs(terms))
    return np.where(np.abs(rates) > rounding, rates, 0.0)


def _descent(sums: Array, falls: Array, rates: Array, live: Array, lengths: Array, relax: bool) -> Solved:
    """The second program; where the balance cannot but get worse, it gets as little worse as can be."""
    bounds = np.zeros(len(falls))
    if relax:
        return _best(sums, falls, bounds, lengths, "descent")
    rows = np.vstack([falls, rates + LOOSENING * np.abs(rates)])
    least = min(float((live * rates).max()), 0.0)
    found = _best(sums, rows, np.append(bounds, least), lengths, "descent")
    if found[0] is not None:
        return found
    balanced, certificate = _best(rates, falls, bounds, lengths, "best balance")
    if balanced is None:
        return None, certificate
    least = min(float((rates - LOOSENING * np.abs(rates)) @ (lengths * balanced)), 0.0)
    return _best(sums, rows, np.append(bounds, least), lengths, "descent in best balance")
