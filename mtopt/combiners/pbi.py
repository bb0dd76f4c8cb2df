"""Penalty-based boundary intersection."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._arguments import check_non_negative
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import Reference, check_reference, losses_above
from mtopt.combiners._preference import Preference, check_preference
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like


@register_combiner("pbi")
class PBI(LossCombiner):
    """PBI, penalty-based boundary intersection: ``d_1 + theta d_2``.

    With ``v = l - z`` and the unit vector ``u = p / ||p||``, ``d_1 = v . u`` is the way along the preference's ray and
    ``d_2 = || v - d_1 u ||`` the distance from it. The weights are ``u + theta (v - d_1 u) / d_2``: of length
    ``sqrt(1 + theta^2)`` off the ray, and u on it. It ends on the ray ``l - z ~ p``, where that meets the front, if
    theta is large enough. Weights are often negative: a loss that is too small for the preference is made to rise.
    K equal losses and preferences give the sum of the gradients over ``sqrt(K)``.

    Zhang and Li, "MOEA/D: a multiobjective evolutionary algorithm based on decomposition", 2007. The paper takes the
    absolute value of d_1, which is the same for losses above z; here d_1 keeps its sign, as in pymoo, so that losses
    below z are not made to rise.

    Args:
        preference: (K,) direction p, non-negative, summing to one. Default: 1/K each.
        reference: (K,) ideal point z, below all that the losses may reach. Default: zeros.
        theta: the penalty, >= 0. Default 5, the paper's and pymoo's; libmoon takes 1.

    An objective may be maximised; give a z below its (negative) loss, or the ray points away from it. A loss that is
    absent from a batch drops out of both vectors.
    """

    search_space = {"theta": ("log", 0.1, 10.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, preference: Preference = None, reference: Reference = None, theta: float = 5.0) -> None:
        check_preference(preference)
        check_reference(reference)
        check_non_negative(theta=theta)
        self.preference, self.reference, self.theta = preference, reference, theta

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``u + theta (v - d_1 u) / d_2``: (K,) for losses (K,)."""
        preference, above = losses_above(self, losses, self.preference, self.reference)
        if not (preference > 0).any():
            return make_tensor_like(np.zeros(len(preference)), losses)
        ray = preference / np.linalg.norm(preference)
        off = above - (above @ ray) * ray
        distance = np.linalg.norm(off)
        if distance <= 1e-14 * np.linalg.norm(above):  # on the ray but for rounding: zero is a subgradient
            return make_tensor_like(ray, losses)
        return make_tensor_like(ray + self.theta * off / distance, losses)
