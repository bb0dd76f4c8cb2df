"""PDU's rule: the retain loss is a constraint, and its multiplier is learned."""

from __future__ import annotations

import torch

import mtopt


class PrimalDual(mtopt.LossCombiner):
    """``d = gamma g_F + lambda g_R``, and then ``lambda <- max(0, lambda + step (L_R - threshold))``.

    Descent on ``gamma L_F + lambda (L_R - threshold)`` in the parameters and ascent in lambda, for the program ``min
    L_F`` subject to ``L_R <= threshold``: Entesari et al., "Constrained entropic unlearning: a primal-dual framework
    for large language models" (arXiv 2506.05314), where L_F is ``logit_flattening`` and L_R the NLL. A rule, not a
    callback, so that it works in every loop, its multiplier is saved and a skipped step leaves it. In no registry: it
    belongs here.

    Args:
        multiplier: lambda at first, >= 0.
        step: of the ascent, > 0.
        threshold: epsilon, the retain loss allowed.
        gamma: weight of the forget loss, > 0.
        warmup: so many steps leave lambda as it is.
        retain, forget: the positions of the two objectives.

    A step without a retain loss in its batch leaves lambda as it is.
    """

    stateful = True
    symmetric = False
    exact_objectives = 2
    state = ("_lambda", "_steps")

    def __init__(
        self,
        *,
        multiplier: float = 100.0,
        step: float = 5.0,
        threshold: float = 0.3,
        gamma: float = 1.0,
        warmup: int = 0,
        retain: int = 0,
        forget: int = 1,
    ) -> None:
        if not multiplier >= 0:
            raise ValueError(f"multiplier must not be negative, got {multiplier!r}")
        if not step > 0:
            raise ValueError(f"step must be positive, got {step!r}")
        if not gamma > 0:
            raise ValueError(f"gamma must be positive, got {gamma!r}")
        if isinstance(warmup, bool) or not isinstance(warmup, int) or warmup < 0:
            raise ValueError(f"warmup must be a number of steps >= 0, got {warmup!r}")
        if (retain, forget) not in ((0, 1), (1, 0)):
            raise ValueError(f"retain and forget must be 0 and 1 in some order, got {retain!r} and {forget!r}")
        self.multiplier, self.step, self.threshold, self.gamma = multiplier, step, threshold, gamma
        self.warmup, self.retain, self.forget = warmup, retain, forget
        self._lambda = float(multiplier)
        self._steps = 0

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """lambda for the retain loss and gamma for the forget loss; then lambda takes its step."""
        objectives, total = self.objectives_of_rows(len(losses))
        if total != 2:
            raise ValueError(
                f"PrimalDual is for two objectives, one to retain and one to forget, found {total}; add the losses of "
                "each side up first"
            )
        weights = [self._lambda if objective == self.retain else self.gamma for objective in objectives]
        if self.retain in objectives:
            if self._steps >= self.warmup:
                violation = float(losses[objectives.index(self.retain)]) - self.threshold
                self._lambda = max(0.0, self._lambda + self.step * violation)
            self._steps += 1
        return torch.tensor(weights, dtype=torch.float64)
