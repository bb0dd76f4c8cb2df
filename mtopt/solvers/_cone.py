"""The worst loss's best descent within an angle of the mean gradient: ConicGrad's program."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from mtopt.linalg import (
    Array,
    Precision,
    normalize_live_rows,
    read_gramian,
    take_block,
    take_semidefinite_root,
)
from mtopt.solvers._active_set import nonnegative_within
from mtopt.solvers._certificate import Certificate, certify
from mtopt.solvers._min_norm import min_norm

_VANISHING = 64.0
"""Errors of a cosine that a squared length must have, over the squared sum of its terms, to point anywhere."""

_TURNS = 0.4
"""Power of the error of a cosine that the squared part of a unit gradient across the mean must exceed: h is not to
follow what rounding makes of that part."""

_UNMET = 64.0
"""Errors of a cosine, times what was added up, by which a demand may be missed that counts as met."""


def best_in_cone(
    gramian: torch.Tensor | npt.ArrayLike, cosine: float, precision: Precision | None = None
) -> tuple[Array, Certificate]:
    """Weights of ``argmax_d min_k g_k . d`` over ``||d|| = ||g_0||``, ``cos(d, g_0) >= c``, ``g_0 = sum_k g_k / K``.

    Without a bound on the angle the shortest convex combination points there. Where that is outside of the cone, d is
    on its boundary, along ``u_0 + h`` with ``u_0 = g_0 / ||g_0||`` and h across it, ``||h|| = tan(arccos c)``. For a
    rate t the shortest h with ``g_k . (u_0 + h) >= t`` for all k is a least-distance program; it grows with t, and the
    best t is the one where it has that length. Where the gradients are Pareto-stationary, as far as is known, no
    direction lowers every loss, and d is the mean.

    Args:
        gramian: (K, K) inner products, any dtype and device; the algebra is float64.
        cosine: c, in (0, 1).
        precision: how exactly gradients and Gramian are known. Default: by the Gramian's dtype.

    Returns:
        The weights of d, (K,) float64, and their certificate: ``residual`` is how far a loss's rate may miss what
        optimality asks of it, in unit gradients over ``||d||``. Zero rows count in the mean and not in the minimum;
        where the mean vanishes, as far as is known, so does d.

    Raises:
        SolverError: the violation is above 1e-10 and more than rounding.
    """
    matrix = read_gramian(gramian)
    precision = precision or Precision.behind(gramian)
    cosines, norms, live = normalize_live_rows(matrix)
    weights, lengths = np.zeros_like(norms), norms[live]
    if not len(cosines):
        return weights, Certificate(0.0, 0.0, "zero rows")
    share = max(_VANISHING * precision.products, precision.vanishing)
    mean = lengths / len(norms)  # the terms of g_0 in unit gradients
    reach = _length(cosines, mean, share)
    if reach == 0.0:
        return weights, Certificate(math.sqrt(share), 0.0, "zero mean")
    root, cosines = take_semidefinite_root(cosines)
    centre = root.dot(mean) / reach  # u_0
    along = centre.dot(root)  # u_k . u_0
    shortest, certificate = min_norm(take_block(matrix, live), precision)
    terms = shortest * lengths
    length = _length(cosines, terms, share)
    if length == 0.0:
        return np.full_like(norms, 1.0 / len(norms)), Certificate(certificate.residual, None, "Pareto-stationary")
    if float(terms.dot(along)) >= cosine * length:
        weights[live] = shortest * (reach / length)
        return weights, certificate
    tangent = math.sqrt((1.0 - cosine) * (1.0 + cosine)) / cosine
    parts = root - np.outer(centre, along)  # h_k in columns
    added, certificate = _boundary(parts, along, lengths / lengths.min(), tangent, precision)
    terms = added + (1.0 - float(added.dot(along))) / reach * mean
    weights[live] = terms / lengths * (reach / math.hypot(1.0, *parts.dot(added)))
    return weights, certificate


def _boundary(
    root: Array, along: Array, lengths: Array, tangent: float, precision: Precision
) -> tuple[Array, Certificate]:
    """The terms of h, and the certificate; the shortest gradient has length one.

    Columns of ``root`` are the parts of the unit gradients across the mean, ``along`` those along it.
    """
    from scipy.optimize import brentq  # half a second of import, paid by who needs it

    across, inverse = root.T.dot(root), 1.0 / lengths
    best = np.zeros_like(along)
    turns = across.diagonal() > precision.products**_TURNS
    turnable = np.flatnonzero(turns)
    inner = take_block(across, turnable)

    def excess(rate: float) -> float:
        """How much longer than the tangent the shortest h is, in [-1, 1]; 1 where there is none."""
        nonlocal best
        demands, terms = rate * inverse - along, np.zeros_like(along)
        size = float(np.abs(demands).max()) + 1.0
        terms[turnable] = nonnegative_within(inner, -demands[turnable], size, precision.products)
        slack = across.dot(terms) - demands
        if slack.min() < -_UNMET * precision.products * (size + float(terms.sum())):
            return 1.0
        long = math.sqrt(max(float(terms.dot(across).dot(terms)), 0.0))
        if long <= tangent * (1.0 + 1e-9):
            best = terms
        return (long - tangent) / (long + tangent)

    low = float((along * lengths).min())
    high = float(along.dot(lengths)) / len(lengths)
    if excess(high) > 0.0 and low < high:
        best = np.zeros_like(along)
        excess(brentq(excess, low, high, xtol=1e-16, rtol=1e-14, disp=False))
    if (along[~turns] < 0.0).any():
        return best, Certificate(1.0, None, "a gradient opposite to the mean")
    return best, _certify(across, inverse, along, best, tangent, precision)


def _certify(
    across: Array, inverse: Array, along: Array, terms: Array, tangent: float, precision: Precision
) -> Certificate:
    """How far the rates lie below the dual's value, ``min_w a_w + tan ||h_w||``, at the weights of h."""
    reached = across.dot(terms)
    length = math.hypot(1.0, tangent)
    long = math.sqrt(max(float(terms.dot(reached)), 0.0))
    if long < tangent * (1.0 - 1e-9):
        return Certificate(math.sqrt(precision.products), None, "demands met as far as they can be")
    best = (float(terms.dot(along)) + tangent * long) / float(terms.dot(inverse))
    missed = float((best * inverse - along - reached).max())
    size = 1.0 + float(terms.sum())
    hidden = precision.products * size * (1.0 + size / long)
    return certify("ConicGrad's program", missed, hidden, length, None, "boundary", excused=16.0 * hidden)


def _length(cosines: Array, terms: Array, share: float) -> float:
    """Of a combination of unit gradients; zero where it cannot be told from zero."""
    squared = float(terms.dot(cosines).dot(terms))
    return math.sqrt(squared) if squared > share * float(np.abs(terms).sum()) ** 2 else 0.0
