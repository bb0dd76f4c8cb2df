"""Linear scalarization."""

from __future__ import annotations

from typing import Literal

import torch

from mtopt.combiners._arguments import check_choice
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._preference import Preference, check_preference, preference_of
from mtopt.combiners._registry import register_combiner


@register_combiner("linear", aliases=("ew", "mean", "ls"))
class Linear(LossCombiner):
    """Linear scalarization: the gradient of ``sum_k p_k l_k``.

    With ``preference=None`` every loss has the same weight. Minimisers of a weighted sum are Pareto optimal, but on a
    concave front they are only its ends, whatever the weights (Miettinen 1999, section 3.1; Das and Dennis 1997).

    Args:
        preference: (K,) weights p, non-negative, summing to one. Default: 1/K each.
        reduction: ``"mean"`` gives the weights p. ``"sum"`` gives K p, so that an equal preference is the plain sum of
            the losses, as in LibMTL's EW and the Nash-MTL repository's LS; the learning rate is then K times larger.

    A loss that is absent from a batch counts as zero: the others keep their weights.
    """

    def __init__(self, *, preference: Preference = None, reduction: Literal["mean", "sum"] = "mean") -> None:
        check_preference(preference)
        check_choice("mean", "sum", reduction=reduction)
        self.preference, self.reduction = preference, reduction

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """p, or K p: (K,) for losses (K,), whose values do not matter."""
        objectives, total = self.objectives_of_rows(len(losses))
        weights = preference_of(self.preference, objectives, total).to(losses.device, losses.dtype)
        return weights * total if self.reduction == "sum" else weights

    def _losses(self, losses: torch.Tensor | None, count: int) -> torch.Tensor:
        # the one loss rule that works on a bare Jacobian, too: it never reads the values
        return torch.zeros(count, dtype=torch.float64) if losses is None else super()._losses(losses, count)
