"""Random loss weighting."""

from __future__ import annotations

import torch

from mtopt.combiners._base import LossCombiner
from mtopt.combiners._random import rule_generator
from mtopt.combiners._registry import register_combiner


@register_combiner("rlw")
class RLW(LossCombiner):
    """RLW, random loss weighting: ``w = softmax(z)`` with a fresh ``z ~ N(0, I)`` in each step.

    Lin et al., "Reasonable effectiveness of random weighting: a litmus test for multi-task learning", TMLR 2022: the
    baseline that a rule must beat to claim that its weights matter. The weights sum to one and each is 1/K on average,
    so on average the step is that of ``linear``, the mean. The same weights on gradients (the paper's RGW) give the
    same direction. The paper's other distributions are left out: the published codes do not agree on how a draw is
    normalised.

    Args:
        seed: of the draws.
        generator: a CPU generator to draw from instead of the rule's own.

    The values of the losses do not matter, negative ones neither. A loss that is absent from a batch counts as zero:
    weights are drawn for all the objectives, and the others keep theirs.
    """

    stochastic = True
    stateful = True
    state = ("_random",)

    def __init__(self, *, seed: int = 0, generator: torch.Generator | None = None) -> None:
        self.seed, self.generator = seed, generator
        self._random = rule_generator(seed, generator)

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """A draw of softmax(N(0, I)): (K,) for losses (K,)."""
        objectives, total = self.objectives_of_rows(len(losses))
        draw = torch.randn(total, generator=self._random, dtype=torch.float64).softmax(0)
        return draw[list(objectives)].to(losses.device, losses.dtype)

    def _losses(self, losses: torch.Tensor | None, count: int) -> torch.Tensor:
        # works on a bare Jacobian, too: it never reads the values
        return torch.zeros(count, dtype=torch.float64) if losses is None else super()._losses(losses, count)
