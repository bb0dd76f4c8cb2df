"""The normalized gradient difference."""

from __future__ import annotations

import torch

from mtopt.combiners._base import NormCombiner
from mtopt.combiners._preference import Preference, check_preference, preference_of
from mtopt.combiners._registry import register_combiner


@register_combiner("ngdiff")
class NGDiff(NormCombiner):
    """NGDiff: ``d = sum_k p_k g_k / ||g_k||``.

    For unlearning, with the retain loss minimised and the forget loss entering as an objective to maximise
    (``Objective("forget", sense="max")``, or its sign flipped), it is ``g_R / ||g_R|| - g_F / ||g_F||``: the bisector
    of the two descent directions. For every pair of gradients the retain loss does not rise and the forget loss does
    not fall to first order, and no loss scale can dominate: ``||d|| <= 2``.

    Jin and Bu (equally) et al., "Unlearning as multi-task optimization: a normalized gradient difference approach with
    an adaptive learning rate", NAACL 2025, pp. 11278-11294 (arXiv 2410.22086). The norm is the l2 norm over all the
    parameters together, of the gradient accumulated over the whole batch; some reimplementations normalise every
    micro-batch, which is another rule. ``d`` does not shrink near a solution (its length depends on the angle alone),
    so the learning rate must: the paper pairs it with an automatic one.

    Args:
        preference: (K,) factors p, non-negative, summing to one. Default: p_k = 1, the paper's. An equal preference
            therefore gives the default direction divided by K.

    A zero gradient has no direction and gets weight zero.
    """

    scale_invariant = True
    separable = True

    def __init__(self, *, preference: Preference = None) -> None:
        check_preference(preference)
        self.preference = preference

    def weights(self, norms: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``p_k / ||g_k||``: (K,) for gradient norms (K,), or for a Gramian (K, K)."""
        if norms.ndim == 2:
            norms = norms.diagonal().sqrt()
        objectives, total = self.objectives_of_rows(len(norms))
        weights = torch.where(norms > 0, 1.0 / norms, 0.0)
        if self.preference is None:
            return weights
        return weights * preference_of(self.preference, objectives, total).to(weights)
