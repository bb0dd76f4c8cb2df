"""Exact Pareto optimal search."""

from __future__ import annotations

import numpy as np
import torch

from mtopt._errors import SolverError
from mtopt.combiners._arguments import check_positive
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._losses import loss_values, require_above
from mtopt.combiners._preference import Preference, preference_of
from mtopt.combiners._ray import check_ray
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import (
    Array,
    Precision,
    average_norms,
    make_tensor_like,
    normalize_gramian,
    read_gramian,
    take_semidefinite_root,
)
from mtopt.solvers import LOOSENING, Certificate, maximise_linear

Solved = tuple[Array | None, Certificate]


@register_combiner("epo")
class EPO(GramianCombiner):
    """EPO, exact Pareto optimal search: to the ray of the preference, and along it to the front.

    With ``r = 1 / p``, ``h = r l / sum(r l)`` the shares of the weighted losses and ``mu = sum_k h_k log(K h_k)`` their
    non-uniformity (zero on the ray ``l = t p``), the anchoring direction has the coefficients
    ``a = r (log(K h) - mu)``, and ``c = G a`` are the rates at which it lowers the losses. The weights w, non-negative
    with the sum 1, solve a linear program.

    - Balance, while ``mu > epsilon``: the largest ``w . c``, such that the losses do not rise that have the largest
      ``r l``, and of the others those with ``c_k <= 0`` no faster than along the anchoring direction,
      ``(G w)_k >= c_k``. Where no ``c_k`` is positive, no loss may rise.
    - Descent, near the ray: the largest ``sum_k (G w)_k``, such that no loss rises and
      ``w . c >= min(0, max_k c_k)``, the balance gets no worse; not the latter with ``relax``.

    In balance losses that are small for the preference may rise ("controlled ascent"), which is how points on
    concave fronts are reached. Mahapatra and Rajan, "Multi-task learning with user preferences: gradient descent with
    controlled ascent in Pareto optimization", ICML 2020, with the two programs of the authors' code. Their r is the
    preference itself; here p is the ray on which the losses end, as in ``asf``, ``pbi`` and ``pmgda``: a large p_k
    allows a large loss.

    The balance program has a solution always: its bounds are not positive, and MGDA's weights have ``G w >= 0``. So has
    the descent program for two losses, and with ``relax``; for three or more no w may meet ``w . c >= min(0, max c)``.
    The bound is then the largest ``w . c`` that does not let a loss rise. (The authors' code has no solution there; it,
    libmoon and others take the weights p.)

    Args:
        preference: (K,) the ray p, positive, summing to one. Default: 1/K each.
        epsilon: the non-uniformity that counts as being on the ray, > 0.
        relax: leave the balance out of the descent.

    Every loss must be positive. The weights sum to one, and are a vertex of the program: away from conflicts often one
    gradient alone. With no conflict, on the ray, that is the gradient with the largest sum of inner products with all,
    so K equal gradients give that gradient. Steps have the gradients' scale; the authors multiply them by
    ``10 max(mu, 0.1)`` in their toy experiments and by K in multi-task training, which is left to the learning rate.
    libmoon clips ``K h`` to 1e-3 in the logarithm; it is not clipped here. A loss that is absent from a batch takes no
    part. A zero gradient belongs to a stationary loss and stays in the program: its weight may be 1, and the step zero.
    ``certificate.method`` says which program was solved.
    """

    positive_losses = True
    search_space = {"relax": ("choice", False, True)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, preference: Preference = None, epsilon: float = 1e-4, relax: bool = False) -> None:
        check_ray("EPO", preference)
        check_positive(epsilon=epsilon)
        self.preference, self.epsilon, self.relax = preference, epsilon, relax

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The weights (K,) of the linear program for a Gramian (K, K) and losses (K,)."""
        matrix = read_gramian(gramian)
        values = loss_values(self._losses(losses, len(matrix)))
        objectives, total = self.objectives_of_rows(len(matrix))
        require_above(self, values, objectives, why="it takes the logarithms of their shares")
        inverse = 1.0 / preference_of(self.preference, objectives, total).numpy()
        weighted = inverse * (values / values.max())
        shares = weighted / weighted.sum()
        logs = np.log(len(values) * shares)
        uneven = max(float(shares @ logs), 0.0)
        # in unit gradients, v = s w: rows of any length have entries of one size
        cosines, norms = normalize_gramian(matrix)
        live = norms > 0.0
        if not live.any():
            self.certificate = Certificate(0.0, 0.0, "zero rows")
            return make_tensor_like(np.full(len(values), 1.0 / len(values)), gramian)
        cosines = take_semidefinite_root(cosines)[1]
        lengths = np.where(live, norms / average_norms(norms), 1.0)
        rates = _rates(cosines, np.where(live, lengths * inverse * (logs - uneven), 0.0), self._precision(gramian))
        falls = cosines + LOOSENING * live  # (G w)_k / s_k
        if uneven > self.epsilon:
            largest, helped = weighted >= (1.0 - 1e-12) * weighted.max(), rates > 0.0
            bounds = np.where(largest, 0.0, rates) if helped.any() else np.zeros_like(rates)
            kept = live & (largest | ~helped)
            found = _best(rates, falls[kept], bounds[kept], lengths, "balance")
        else:
            found = self._descent(cosines @ (live * lengths), falls[live], rates, np.where(live, lengths, 0.0), lengths)
        weights, self.certificate = found
        if weights is None:
            raise SolverError(
                "EPO's linear program has no solution, which it has for every positive semi-definite Gramian; compute "
                "the Gramian in float64"
            )
        return make_tensor_like(weights, gramian)

    def _descent(self, sums: Array, falls: Array, rates: Array, live: Array, lengths: Array) -> Solved:
        """The second program; where the balance cannot but get worse, it gets as little worse as can be."""
        bounds = np.zeros(len(falls))
        if self.relax:
            return _best(sums, falls, bounds, lengths, "descent")
        rows = np.vstack([falls, rates + LOOSENING * np.abs(rates)])
        least = min(float((live * rates).max()), 0.0)
        found = _best(sums, rows, np.append(bounds, least), lengths, "descent")
        if found[0] is not None:
            return found
        best, certificate = _best(rates, falls, bounds, lengths, "best balance")
        if best is None:
            return None, certificate
        least = min(float((rates - LOOSENING * np.abs(rates)) @ (lengths * best)), 0.0)
        return _best(sums, rows, np.append(bounds, least), lengths, "descent in best balance")


def _rates(cosines: Array, terms: Array, precision: Precision) -> Array:
    """``c_k / s_k``, the rates of the anchoring direction; zero where they cannot be told from it."""
    rates = cosines @ terms
    rounding = len(terms) * precision.products * (np.abs(cosines) @ np.abs(terms))
    return np.where(np.abs(rates) > rounding, rates, 0.0)


def _best(objective: Array, rows: Array, bounds: Array, lengths: Array, name: str) -> Solved:
    """The weights with the largest ``objective . v``, ``rows v >= bounds``; None where there are none."""
    found, solved = maximise_linear(objective, rows, bounds, 1.0 / lengths)
    certificate = Certificate(solved.residual, solved.gap, f"{name}, {solved.method}")
    if found is None:
        return None, certificate
    weights = found / lengths
    return weights / weights.sum(), certificate
