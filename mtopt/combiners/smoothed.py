"""Weights that are averaged over the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from mtopt.combiners._arguments import check_interval
from mtopt.combiners._base import Combiner
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._tracked import joined
from mtopt.combiners._wrapper import Wrapper, require_weights, weights_of
from mtopt.linalg import Gradients


class FollowsLearningRate:
    """CR-MOGM's schedule for :class:`Smoothed`: ``beta = 1 - lr_t / lr_0``, read off an optimizer in each step.

    ::

        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        rule = mtopt.Smoothed(mtopt.create_combiner("mgda"), beta=FollowsLearningRate(optimizer))

    lr_0 is the rate that a scheduler has noted as the initial one, or that of the optimizer now; the first group of
    parameters counts. Above lr_0, as in a warm-up, beta is zero. At a rate of zero the weights stay as they are.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.first = float(self._group.get("initial_lr", self._group["lr"]))
        if not self.first > 0:
            raise ValueError(f"optimizer must begin with a positive learning rate, found {self.first}")

    @property
    def _group(self) -> dict[str, Any]:
        group: dict[str, Any] = self.optimizer.param_groups[0]
        return group

    def __call__(self) -> float:
        return max(0.0, 1.0 - float(self._group["lr"]) / self.first)

    def __repr__(self) -> str:
        return f"<1 - lr / {self.first:g}>"


class Smoothed(Wrapper):
    """CR-MOGM: an exponential average of the rule's weights, applied to the gradients of the step.

    ``w <- beta w + (1 - beta) w(rule)``, ``d = sum_k w_k g_k``. Weights made from a mini-batch depend on the noise of
    the gradients that they multiply, and their product is biased; averaged over the steps, they hardly do.

    Zhou et al., "On the convergence of stochastic multi-objective gradient manipulation and beyond", NeurIPS 2022: beta
    is the share of the past, the paper's alpha. There it rises towards one as the learning rate falls,
    ``1 - lr_t / lr_0``, which is :class:`FollowsLearningRate`; a number is kept. The average starts with the first
    weights of the rule, as they are.

    Args:
        rule: any rule with weights; a rule on losses or on several draws, too.
        beta: share of the past, in [0, 1); 0 is the rule itself. Or a function without arguments that says it for each
            step.

    A loss that is absent from a step keeps its average; one that was not there before starts with its first weight. The
    rule's direction, if it gives one, is not used: a rule on tracked gradients is applied to the step's own. The
    wrapper promises nothing that the rule does: losses may rise. The averages of rules whose weights differ from step
    to step by their common scale are about the steps with the largest. :class:`PerGroup` has no weights for whole
    gradients: wrap what is inside it.
    """

    state = ("_members", "_average")
    _as_long = ("_members", "_average")

    def __init__(self, rule: Combiner, beta: float | Callable[[], float]) -> None:
        super().__init__(rule)
        if not callable(beta):
            check_interval("[0, 1)", beta=beta)
        require_weights("Smoothed", rule, "averages the weights of a rule")
        self.beta = beta
        self._declare(stateful=True, scale_invariant=False, non_conflicting=False)
        self._members: list[int] = []  # the objective of each average, in order of appearance
        self._average = torch.zeros(0, dtype=torch.float64)

    def _averaged(self, weights: torch.Tensor, objectives: Sequence[int]) -> torch.Tensor:
        """The average for the losses of ``objectives`` after one more step with ``weights``; changes nothing."""
        if len(weights) == 0:
            return weights
        known = dict(zip(self._members, self._average.tolist(), strict=True))
        past = [known.get(k, now) for k, now in zip(objectives, weights.tolist(), strict=True)]
        beta = self.beta() if callable(self.beta) else self.beta
        check_interval("[0, 1]", beta=beta)
        return beta * torch.tensor(past, dtype=torch.float64) + (1.0 - beta) * weights

    def _moved(self, weights: torch.Tensor, objectives: Sequence[int]) -> torch.Tensor:
        """The same, and the average is moved there."""
        average = self._averaged(weights, objectives)
        self._members, positions = joined(self._members, objectives)
        grown = torch.cat([self._average, torch.zeros(len(self._members) - len(self._average), dtype=torch.float64)])
        self._average = grown.index_copy(0, torch.tensor(positions, dtype=torch.long), average)
        self.certificate = self.rule.certificate
        return average

    def kept_weights(self, objectives: Sequence[int], total: int) -> torch.Tensor | None:
        """The average after a step with the weights that the rule keeps, if it keeps any."""
        kept = self.rule.kept_weights(objectives, total)
        return None if kept is None else self._averaged(kept, objectives)

    def keep(self, objectives: Sequence[int], total: int) -> None:
        """A step was made with the weights that the rule keeps."""
        kept = self.rule.kept_weights(objectives, total)
        assert kept is not None
        self.rule.keep(objectives, total)
        self._moved(kept, objectives)

    def weigh(self, losses: torch.Tensor, objectives: Sequence[int], total: int) -> torch.Tensor:
        """The average of the rule's weights for the losses."""
        return self._moved(self.rule.weigh(losses, objectives, total), objectives)

    def combine_draws(self, draws: Sequence[Gradients], losses: torch.Tensor | None = None) -> Outcome:
        """The average of the rule's weights for the draws."""
        weights = weights_of(self.rule.combine_draws(draws, losses), self.rule)
        return Outcome(self._moved(weights, draws[0].objectives))

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        weights = weights_of(self.rule.combine(gradients, losses), self.rule)
        return Outcome(self._moved(weights, gradients.objectives))
