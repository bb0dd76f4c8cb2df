"""Conditioned one-shot multi-objective search."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._arguments import check_non_negative
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import Reference, check_reference, losses_above
from mtopt.combiners._preference import Preference, check_preference
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like


@register_combiner("cosmos")
class COSMOS(LossCombiner):
    """COSMOS: the gradient of ``p . l - penalty cos(p, l - z)``, a weighted sum that stays near the preference's ray.

    With the unit vectors u of p and v of ``l - z``, the weights are ``p - penalty (u - (u . v) v) / || l - z ||``. On
    the ray they are p, those of ``linear``; off it, some may be negative. The second term has no unit, so penalty must
    fit the losses: at losses c times as large it matters c times less.

    Ruchte and Grabocka, "Scalable Pareto front approximation for deep multi-objective learning", ICDM 2021. The paper
    trains one network for all preferences, drawn anew in each step and given to it as an input: see
    ``mtopt.training.PreferenceTrainer``. It has no reference point: z = 0 is its rule. libmoon divides ``p . l`` by
    ``||p||``.

    Args:
        preference: (K,) weights p, non-negative, summing to one. Default: 1/K each. May be set between steps.
        reference: (K,) point z that the ray starts from. Default: zeros.
        penalty: the paper's lambda, >= 0, tuned from 0.01 to 8. Default 2, the authors' for Multi-MNIST.

    Losses may have any sign, so that an objective may be maximised; give a z below its (negative) loss, or the ray
    points away from it. An absent loss drops out of both vectors. At ``l = z``, without an angle, the weights are p.
    """

    search_space = {"penalty": ("log", 0.01, 8.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, preference: Preference = None, reference: Reference = None, penalty: float = 2.0) -> None:
        check_preference(preference)
        check_reference(reference)
        check_non_negative(penalty=penalty)
        self.preference, self.reference, self.penalty = preference, reference, penalty

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``p - penalty d cos(p, l - z) / d l``: (K,) for losses (K,)."""
        check_preference(self.preference)  # it may have been set since the last step
        preference, above = losses_above(self, losses, self.preference, self.reference)
        length, size = np.linalg.norm(above), np.linalg.norm(preference)
        if length == 0 or size == 0:
            return make_tensor_like(preference, losses)
        ray, unit = preference / size, above / length
        turn = ray - (ray @ unit) * unit
        if np.linalg.norm(turn) <= 1e-14:  # on the ray but for rounding, which the division by length would blow up
            return make_tensor_like(preference, losses)
        return make_tensor_like(preference - self.penalty * turn / length, losses)
