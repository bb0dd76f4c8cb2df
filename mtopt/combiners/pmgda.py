"""Preference-based multiple-gradient descent."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from mtopt.combiners._arguments import check_choice, check_interval, check_positive
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._losses import loss_values
from mtopt.combiners._preference import Preference
from mtopt.combiners._ray import check_ray, off_ray, unit_ray
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like, read_gramian
from mtopt.solvers import correct_towards, min_norm, predict_along


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
        check_positive(h_eps=h_eps)
        check_interval("[0, 1]", sigma=sigma)
        check_choice("tangent", "mgda", prediction=prediction)
        self.preference, self.h_eps, self.sigma, self.prediction = preference, h_eps, sigma, prediction

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The weights (K,) of the prediction or the correction for a Gramian (K, K) and losses (K,)."""
        matrix = read_gramian(gramian)
        values = loss_values(self._losses(losses, len(matrix)))
        off = off_ray(values, unit_ray(self.preference, *self.objectives_of_rows(len(matrix))))
        distance, precision = float(np.linalg.norm(off)), self._precision(gramian)
        if distance >= self.h_eps:
            weights, self.certificate = correct_towards(matrix, off / distance, self.sigma, precision)
        elif distance > 0.0 and self.prediction == "tangent":
            weights, self.certificate = predict_along(matrix, off / distance, precision)
        else:
            weights, self.certificate = min_norm(matrix, precision)
        return make_tensor_like(weights, gramian)
