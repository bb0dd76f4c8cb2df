"""The gradient difference normalised by the losses."""

from __future__ import annotations

import torch

from mtopt.combiners._base import LossCombiner
from mtopt.combiners._preference import Preference, check_preference, preference_of
from mtopt.combiners._registry import register_combiner


@register_combiner("loss_ngdiff")
class LossNGDiff(LossCombiner):
    """LossNGDiff: ``d = sum_k p_k g_k / |l_k|``, NGDiff with loss values where that has gradient norms.

    For unlearning, with the retain loss minimised and the forget loss an objective to maximise
    (``Objective("forget", sense="max")``, or its sign flipped), it is ``g_R / L_R - g_F / L_F``: a forget loss that
    comes in as ``-L_F`` is negative, so what divides is its size. One backward instead of two.

    A baseline of Jin and Bu (equally) et al., "Unlearning as multi-task optimization: a normalized gradient difference
    approach with an adaptive learning rate", NAACL 2025, pp. 11278-11294 (arXiv 2410.22086), whose code is not public.
    Unlike NGDiff it does not keep a long gradient from dominating, and the retain loss may rise.

    ``d`` is the gradient of ``sum_k p_k sign(l_k) log |l_k|``: for positive losses, that of scale-invariant linear
    scalarization (``si``). It grows as a loss approaches zero. With K losses of one and equal gradients the step is K
    times that of ``linear``.

    Args:
        preference: (K,) factors p, non-negative, summing to one. Default: p_k = 1. An equal preference therefore gives
            the default direction divided by K.

    A loss of exactly zero gets weight zero: it has reached the bound that losses usually have there, where its gradient
    is zero, too. A loss that is absent from a batch counts as zero: the others keep their weights.
    """

    scale_invariant = True

    def __init__(self, *, preference: Preference = None) -> None:
        check_preference(preference)
        self.preference = preference

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``p_k / |l_k|``: (K,) for losses (K,)."""
        objectives, total = self.objectives_of_rows(len(losses))
        weights = torch.where(losses != 0, 1.0 / losses.abs(), 0.0)
        if self.preference is None:
            return weights
        return weights * preference_of(self.preference, objectives, total).to(weights)
