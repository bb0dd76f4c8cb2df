"""Gradients that are clipped before a rule sees them."""

from __future__ import annotations

import torch

from mtopt.combiners._base import Combiner, Needs
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._rescaled import rescaled
from mtopt.combiners._wrapper import Wrapper, require_seen
from mtopt.linalg import Gradients

_NEEDS: dict[Needs, Needs] = {"losses": "norms", "norms": "norms", "gramian": "gramian", "jacobian": "jacobian"}


class Clipped(Wrapper):
    """The rule's direction for gradients that are each clipped to a norm, before they are combined.

    The rule is given the rows ``f_k g_k`` with ``f_k = min(1, max_norm / ||g_k||)``, and what it makes of them is the
    direction: weights w for these rows are the weights ``f_k w_k`` of the raw ones. One loss with a burst of a gradient
    then neither drags the weights nor the step; the others are left as they are. Clipping after the combination, which
    bounds the step and not its share of each loss, is ``torch.nn.utils.clip_grad_norm_`` as always.

    ``Clipped(Linear(reduction="sum"), max_norm=c)`` is the sum of clipped gradients, as in differentially private
    training with one loss per sample (Abadi et al., "Deep learning with differential privacy", CCS 2016, algorithm 1,
    without the noise); with a c below all norms any rule gets gradients of equal length, as from
    ``Normalized(rule, by="l2")``.

    Args:
        rule: any rule on one mini-batch. One on losses needs the norms, too.
        max_norm: the length that no gradient exceeds, > 0, in the unit of a gradient. ``math.inf`` clips nothing.

    The norm is that of the parameters that the rule is applied to. A head's own gradient is not clipped, unless
    ``private="combined"`` puts it into the rows; nor does a GradScaler's factor count. No loss rises where the rule
    promises it: a clipped gradient has the direction of the raw one.
    """

    def __init__(self, rule: Combiner, max_norm: float) -> None:
        super().__init__(rule)
        if isinstance(max_norm, bool) or not isinstance(max_norm, int | float) or not max_norm > 0:
            raise ValueError(f"max_norm must be a positive number, found {max_norm!r}")
        require_seen(self, rule)
        self.max_norm = max_norm
        self._declare(needs=_NEEDS[rule.needs], scale_invariant=False, homogeneous=False)

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        norms = gradients.gramian.diagonal().sqrt()
        factors = torch.where(norms > self.max_norm, self.max_norm / norms, 1.0)
        outcome = self.rule.combine(rescaled(gradients, factors, self.rule), losses)
        self.certificate = self.rule.certificate
        return Outcome(None if outcome.weights is None else outcome.weights * factors, outcome.direction)
