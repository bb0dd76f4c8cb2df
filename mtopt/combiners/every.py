"""Weights that are kept for several steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch

from mtopt.combiners._base import Combiner
from mtopt.combiners._draws import FollowingDraws
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._matrix_free import Following
from mtopt.combiners._wrapper import Wrapper, require_weights, weights_of
from mtopt.linalg import Array, Gradients


class Every(Wrapper):
    """The rule is asked every n steps; in between its weights are kept.

    A kept step is one backward of the weighted losses, as with a rule on losses, so that a rule on gradients costs
    ``(K + n - 1) / n`` backward passes per step instead of K. :func:`mtopt.backward` looks at the gradient before it
    writes it: a NaN or infinite one skips the step, and a skipped step does not count.

    With a rule on gradients, parameters that a single loss reaches (heads) get their own gradients in kept steps, too:
    those of the same backward divided by the loss's weight, or, where the weight is far from one (below 1e-3, above
    1e3), of a second backward that ends at these parameters. Parameters that some of the losses reach have weights of
    their own and take one more backward for each set of losses. Losses given as
    callables cost what they always do, one backward each.

    The weights belong to raw gradients: those of a rule on tracked gradients (MoCo) are applied to the step's own. A
    loss that is absent from a kept step leaves the others' weights as they are; one whose weight is not known makes the
    rule be asked at once, and n count from there. The wrapper promises nothing about kept steps: with weights from
    another point losses may rise.

    With ``plan="matrix_free"``, around a rule that has it, every n-th step moves the weights by a product, without K
    backwards either; in between they stay, and a step is one weighted backward without a second forward. The direction
    has the rule's own length in every step.

    Navon et al., "Multi-task learning as a bargaining game", ICML 2022, train Nash-MTL so.

    Args:
        rule: any rule with weights; a rule on losses or on several draws, too.
        n: steps between two questions, >= 1; 1 asks in every step.

    :class:`PerGroup` has no weights for whole gradients: wrap what is inside it, which keeps the weights of each group,
    but needs the K gradients in every step.
    """

    state = ("_members", "_kept", "_age")
    _as_long = ("_members", "_kept")

    def __init__(self, rule: Combiner, n: int) -> None:
        super().__init__(rule)
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ValueError(f"n must be a whole number of steps >= 1, found {n!r}")
        require_weights("Every", rule, "keeps the weights of a rule")
        self.n = n
        self._declare(stateful=True, non_conflicting=rule.non_conflicting and n == 1, matrix_free=rule.matrix_free)
        self._members: list[int] = []  # the objective of each weight
        self._kept = torch.zeros(0, dtype=torch.float64)
        self._age = 0  # steps made with these weights

    def _is_due(self, objectives: Sequence[int]) -> bool:
        return self._age % self.n == 0 or not set(objectives) <= set(self._members)

    def kept_weights(self, objectives: Sequence[int], total: int) -> torch.Tensor | None:
        """The weights of the losses of ``objectives``, or None when the rule is to be asked."""
        if self._is_due(objectives):
            return self.rule.kept_weights(objectives, total)
        return self._kept[[self._members.index(k) for k in objectives]] if objectives else self._kept[:0]

    def keep(self, objectives: Sequence[int], total: int) -> None:
        """Count a step made with the weights kept."""
        if not self._is_due(objectives):
            self._age += 1
            self.certificate = None
            return
        weights = self.rule.kept_weights(objectives, total)
        self.rule.keep(objectives, total)
        assert weights is not None
        self._hold(weights, objectives)

    def weights_to_follow(self, objectives: Sequence[int]) -> torch.Tensor:
        """The rule's, which move in :meth:`follow` alone."""
        return self._following().weights_to_follow(objectives)

    def follow(
        self, objectives: Sequence[int], products: Array, squared_length: float, *, rate: float = 0.2
    ) -> tuple[float, float]:
        """Move the rule's weights by one product, in a step in which none are kept."""
        rule = self._following()
        weights = rule.weights_to_follow(objectives)
        factor, error = rule.follow(objectives, products, squared_length, rate=rate)
        self._hold(weights * factor, objectives)
        return factor, error

    def lengthening(self, objectives: Sequence[int], squared_length: float) -> float:
        """What gives a direction with the weights to follow the rule's own length."""
        return self._following().lengthening(objectives, squared_length)

    def weights_of_product(self, objectives: Sequence[int], products: Array) -> torch.Tensor:
        """Those of a rule on several draws, in a step in which none are kept."""
        weights = cast(FollowingDraws, self.rule).weights_of_product(objectives, products)
        return self._hold(weights, objectives)

    def _following(self) -> Following:
        return cast(Following, self.rule)  # as matrix_free says

    def _hold(self, weights: torch.Tensor, objectives: Sequence[int]) -> torch.Tensor:
        self._members, self._kept, self._age = list(objectives), weights.clone(), 1
        self.certificate = self.rule.certificate
        return weights

    def _reused(self, objectives: Sequence[int], total: int) -> torch.Tensor | None:
        """The weights kept, with this step counted; None when the rule is to be asked."""
        if self._is_due(objectives):
            return None
        weights = self.kept_weights(objectives, total)
        self.keep(objectives, total)
        return weights

    def weigh(self, losses: torch.Tensor, objectives: Sequence[int], total: int) -> torch.Tensor:
        """The weights kept, or those of the rule for these losses."""
        kept = self._reused(objectives, total)
        return self._hold(self.rule.weigh(losses, objectives, total), objectives) if kept is None else kept

    def combine_draws(self, draws: Sequence[Gradients], losses: torch.Tensor | None = None) -> Outcome:
        """The weights kept, or those of the rule for these draws."""
        kept = self._reused(draws[0].objectives, draws[0].total)
        return self._answer(self.rule.combine_draws(draws, losses), draws[0]) if kept is None else Outcome(kept)

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        kept = self._reused(gradients.objectives, gradients.total)
        return self._answer(self.rule.combine(gradients, losses), gradients) if kept is None else Outcome(kept)

    def _answer(self, outcome: Outcome, gradients: Gradients) -> Outcome:
        self._hold(weights_of(outcome, self.rule), gradients.objectives)
        return outcome
