"""Preference-based multiple-gradient descent."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from mtopt._errors import SolverError
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._losses import loss_values
from mtopt.combiners._preference import Preference
from mtopt.combiners._ray import check_ray, off_ray, unit_ray
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import (
    Array,
    Precision,
    average_norms,
    make_tensor_like,
    normalize_gramian,
    read_coordinates,
    read_gramian,
)
from mtopt.solvers import LOOSENING, Certificate, maximise_linear, min_norm


@register_combiner("pmgda")
class PMGDA(GramianCombiner):
    """PMGDA: descend along the ray of the preference, and correct towards it whenever it is left.

    With ``u = p / ||p||``, ``h = || l - (l . u) u ||`` is how far the losses are off the ray, n its derivative by the
    losses and ``q = J' n`` its gradient.

    - Prediction, where ``h < h_eps``: the shortest ``d = sum_k w_k g_k + nu q``, w non-negative with the sum 1 and nu
      free, that is MGDA within the directions that leave h as it is; the weights are ``w + nu n``.
    - Correction elsewhere: ``d = sum_k m_k g_k / ||g_k|| + m_0 q / ||q||``, m non-negative with the sum 1, that lowers
      the losses most, ``max min_k g_k . d``, among those that lower h at ``sigma`` times the fastest pace,
      ``q . d >= sigma ||q||``. The weights are ``m_k / ||g_k|| + m_0 n_k / ||q||``, often negative.

    Zhang, Lin and Zhang, "PMGDA: a preference-based multiple gradient descent algorithm", arXiv 2402.09492. The
    authors' library libmoon predicts with plain MGDA instead, which leaves the ray and comes back in the next
    correction, and adds 1e-4 to the norms; when its linear program fails it takes MGDA. The program has a solution
    always, ``d = q / ||q||`` being allowed.

    Args:
        preference: (K,) the ray p, positive, summing to one: a large p_k allows a large loss. Default: 1/K each.
        h_eps: how far off the ray counts as on it, > 0, in the losses' unit. Scale losses by c, and it must follow.
        sigma: the share of the pace that corrections keep, in [0, 1].
        prediction: ``"tangent"``, the paper's, or ``"mgda"``, libmoon's.

    Losses may have any sign, but the ray has positive ones. In predictions d has the gradients' scale, at most the
    length of the shortest: K equal gradients give that gradient with equal preferences. With two losses it is
    ``min(u)`` times the gradient of ``l . u`` within the directions allowed, so on a ray near an axis it is short, the
    more so under Adam, which divides it by the length of corrections; ``"mgda"`` is not tied to the ray. In corrections
    ``sigma <= ||d|| <= 1`` whatever the gradients are, so the learning rate is the distance moved; far from the front
    they may raise every loss. A loss that is absent from a batch takes no part. A zero gradient stops the prediction
    and is no direction in the correction. Where q is zero (h cannot change), or h is, the prediction is MGDA and the
    correction ``max min_k g_k . d``.
    """

    search_space = {"h_eps": ("log", 1e-3, 1e-1)}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self,
        *,
        preference: Preference = None,
        h_eps: float = 0.01,
        sigma: float = 0.95,
        prediction: Literal["tangent", "mgda"] = "tangent",
    ) -> None:
        check_ray("PMGDA", preference)
        if not h_eps > 0:
            raise ValueError(f"h_eps must be positive, found {h_eps}")
        if not 0 <= sigma <= 1:
            raise ValueError(f"sigma must be in [0, 1], found {sigma}")
        if prediction not in ("tangent", "mgda"):
            raise ValueError(f"prediction must be 'tangent' or 'mgda', found {prediction!r}")
        self.preference = preference
        self.h_eps = h_eps
        self.sigma = sigma
        self.prediction = prediction

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The weights (K,) of the prediction or the correction for a Gramian (K, K) and losses (K,)."""
        matrix = read_gramian(gramian)
        values = loss_values(self._losses(losses, len(matrix)))
        off = off_ray(values, unit_ray(self.preference, *self.objectives_of_rows(len(matrix))))
        distance = float(np.linalg.norm(off))
        precision = self._precision(gramian)
        if distance < self.h_eps and (distance == 0.0 or self.prediction == "mgda"):
            weights, self.certificate = min_norm(matrix, precision)
            return make_tensor_like(weights, gramian)
        rows = read_coordinates(matrix)
        normal = off / distance
        gradient = normal @ rows
        moduli = np.linalg.norm(rows, axis=1) @ np.abs(normal)
        if gradient @ gradient <= precision.rank_share(len(matrix)) * moduli**2:
            gradient = np.zeros_like(gradient)  # but for rounding
        if distance < self.h_eps:
            weights, self.certificate = _predicted(rows, normal, gradient, precision)
        else:
            weights, self.certificate = _corrected(rows, normal, gradient, self.sigma)
        return make_tensor_like(weights, gramian)


def _predicted(rows: Array, normal: Array, gradient: Array, precision: Precision) -> tuple[Array, Certificate]:
    length = np.linalg.norm(gradient)
    if length == 0.0:
        return min_norm(rows @ rows.T, precision)
    direction = gradient / length
    tangent = rows - np.outer(rows @ direction, direction)
    tangent -= np.outer(tangent @ direction, direction)
    weights, certificate = min_norm(tangent @ tangent.T, precision)
    return weights - (weights @ rows @ direction / length) * normal, certificate


def _corrected(rows: Array, normal: Array, gradient: Array, sigma: float) -> tuple[Array, Certificate]:
    """The linear program in m, m_0 and the pace t = t_+ - t_-: ``u_k . d - t / s_k >= 0``, norms s.

    Zero rows have no pace to keep up with, and take no part.
    """
    moving = np.flatnonzero((rows != 0.0).any(axis=1))
    weights = np.zeros(len(rows))
    if not len(moving):
        return weights, Certificate(0.0, 0.0, "zero rows")
    rows, normal = rows[moving], normal[moving]
    every = np.vstack([rows, gradient])
    cosines, norms = normalize_gramian(every @ every.T)
    live = norms > 0.0
    cosines = cosines + LOOSENING * np.outer(live, live)
    count = len(rows)
    paces = np.where(live, norms, 1.0) / average_norms(norms[:count])
    program = np.zeros((count + 1, count + 3))
    program[:, : count + 1] = cosines
    program[:count, count + 1] = -1.0 / paces[:count]
    program[:count, count + 2] = 1.0 / paces[:count]
    program[count, : count + 1] -= sigma * live[count]
    objective, edge = np.zeros(count + 3), np.ones(count + 3)
    objective[count + 1 :] = 1.0, -1.0
    edge[count + 1 :] = 0.0
    found, certificate = maximise_linear(objective, program, np.zeros(count + 1), edge)
    if found is None:
        raise SolverError(
            "PMGDA's linear program has no solution, which it has for every Gramian; compute the Gramian in float64"
        )
    shares = np.divide(found[: count + 1], norms, out=np.zeros(count + 1), where=live)
    weights[moving] = shares[:count] + shares[count] * normal
    return weights, Certificate(certificate.residual, certificate.gap, f"correction, {certificate.method}")
