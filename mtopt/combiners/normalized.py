"""Gradients that are normalised before a rule sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from mtopt.combiners._arguments import check_choice
from mtopt.combiners._base import Combiner, Needs
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._losses import require_above
from mtopt.combiners._rescaled import rescaled
from mtopt.combiners._wrapper import Wrapper, require_seen, require_weights, weights_of
from mtopt.linalg import Gradients

_ORDER: tuple[Needs, ...] = ("losses", "norms", "gramian", "jacobian")


class Normalized(Wrapper):
    """The rule's direction for the gradients divided by their norms, their losses, or both.

    With ``f_k = 1 / ||g_k||`` (``by="l2"``), ``1 / l_k`` (``"loss"``, ``"log"``) or ``1 / (l_k ||g_k||)`` (``"loss+"``)
    the rule is given the rows ``f_k g_k``, and what it makes of them is the direction: weights w for these rows are
    the weights ``f_k w_k`` of the raw ones, whose lengths no longer matter to ``"l2"``. The rule reads the losses as
    they are, except that ``"log"`` takes log l_k for the k-th objective throughout: its gradient is ``g_k / l_k``, and
    the rule reads log l_k.

    The normalisations are those of Sener and Koltun's MGDA code ("Multi-task learning as multi-objective optimization",
    NeurIPS 2018) and of LibMTL; ``"log"`` is the LOG-MGDA, LOG-CAGrad and LOG-IMTL of the FAMO repository. The first of
    these codes applies the weights for normalised gradients to the raw losses, which is ``applied_to="raw"``; LibMTL
    does so with gradients of the representation only, and otherwise adds up normalised gradients, as here by default.

    ``Normalized(Linear(reduction="sum"), by="l2")`` is NGDiff and, ``by="log"``, SI. A rule whose step has the length
    of the gradients makes steps of length about one with ``"l2"``, also near a solution.

    Args:
        rule: any rule on one mini-batch.
        by: ``"l2"``, ``"loss"``, ``"loss+"`` or ``"log"``.
        applied_to: ``"normalized"``, or ``"raw"``: the rule's weights for normalised gradients multiply raw ones, which
            needs a rule with weights, and whose promises no longer hold.

    A zero gradient stays zero. Losses must be positive except for ``by="l2"``, which reads none: that of an objective
    to maximise is refused. A rule on losses needs no gradients for ``"loss"`` and ``"log"``, and only their norms for
    the others. Around :class:`Every` the weights are kept for normalised gradients, so the gradients are needed in
    every step; ``Every(Normalized(rule), n)`` needs them every n steps.
    """

    def __init__(
        self,
        rule: Combiner,
        by: Literal["l2", "loss", "loss+", "log"] = "l2",
        *,
        applied_to: Literal["normalized", "raw"] = "normalized",
    ) -> None:
        super().__init__(rule)
        check_choice("l2", "loss", "loss+", "log", by=by)
        check_choice("normalized", "raw", applied_to=applied_to)
        require_seen(self, rule)
        if applied_to == "raw":
            require_weights("Normalized(applied_to='raw')", rule, "applies the weights of a rule to raw gradients")
        self.by, self.applied_to = by, applied_to
        self._by_norm, self._by_loss = by in ("l2", "loss+"), by != "l2"
        needs = max(rule.needs, "norms" if self._by_norm else "losses", key=_ORDER.index)
        self._declare(
            needs=needs,
            scale_invariant=False,
            non_conflicting=rule.non_conflicting and applied_to == "normalized",
            positive_losses=rule.positive_losses or self._by_loss,
            homogeneous=by == "l2" or rule.homogeneous,
        )

    def weigh(self, losses: torch.Tensor, objectives: Sequence[int], total: int) -> torch.Tensor:
        """Weights for the losses of ``objectives``, where neither the rule nor the normalisation needs gradients."""
        if self.needs != "losses":
            return super().weigh(losses, objectives, total)
        factors = self._factors(None, losses, objectives)
        weights = self.rule.weigh(self._seen(losses), objectives, total)
        return weights * factors if self.applied_to == "normalized" else weights

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        values = self._losses(losses, len(gradients.objectives)) if self._by_loss else losses
        norms = gradients.gramian.diagonal().sqrt() if self._by_norm else None
        factors = self._factors(norms, values, gradients.objectives)
        scaled = rescaled(gradients, factors, self.rule)
        outcome = self.rule.combine(scaled, None if values is None else self._seen(values))
        self.certificate = self.rule.certificate
        if self.applied_to == "raw":
            return Outcome(weights_of(outcome, self.rule))
        return Outcome(None if outcome.weights is None else outcome.weights * factors, outcome.direction)

    def _factors(
        self, norms: torch.Tensor | None, losses: torch.Tensor | None, objectives: Sequence[int]
    ) -> torch.Tensor:
        """f, float64."""
        factors = torch.ones(len(objectives), dtype=torch.float64)
        if norms is not None:
            factors = torch.where(norms > 0, 1.0 / norms, 0.0)
        if self._by_loss:
            assert losses is not None
            require_above(self, losses.numpy(), objectives, why=f"by={self.by!r} divides by them")
            factors = factors / losses
        return factors

    def _seen(self, losses: torch.Tensor) -> torch.Tensor:
        return losses.log() if self.by == "log" else losses
