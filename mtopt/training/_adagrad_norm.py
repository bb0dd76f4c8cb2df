"""AdaGrad-Norm: one learning rate for all parameters, that falls with the gradients met."""

from __future__ import annotations

import math

import torch
from torch.optim.optimizer import ParamsT

from mtopt.training._optimizer import GradientStep


class AdaGradNorm(GradientStep):
    """``b² <- b² + ||g||²``, ``x <- x - (lr / b) g``, with one b for all parameters together.

    Unlike AdaGrad's, a step goes along the direction that the rule made: coordinates are not rescaled, so what a rule
    promises of its direction holds for the step. Ward, Wu and Bottou, "AdaGrad stepsizes: sharp convergence over
    nonconvex landscapes", ICML 2019; it is the optimizer of AdAdaGrad's theory, beside :class:`AdaptiveBatchSize`.

    Args:
        params: parameters or groups; b is that of all of them.
        lr: > 0. Default: 1.
        start: b at first, > 0. Default: 0.01. The first step is at most lr long, whatever it is.

    Raises:
        ValueError: a rate or a start that is not positive.
    """

    def __init__(self, params: ParamsT, lr: float | torch.Tensor = 1.0, *, start: float = 1e-2) -> None:
        if not float(lr) > 0 or not start > 0:
            raise ValueError(f"lr and start must be positive, found lr={lr!r}, start={start!r}")
        super().__init__(params, {"lr": lr, "start": start, "squares": 0.0})

    def update(self) -> None:
        """Add to b, and step."""
        gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        if not gradients:
            return
        norms = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64).cpu() for g in gradients])
        squares = self.param_groups[0]["squares"] + float(norms.square().sum())
        for group in self.param_groups:
            group["squares"] = squares
            rate = float(group["lr"]) / math.sqrt(group["start"] ** 2 + squares)
            for param in group["params"]:
                if param.grad is not None:
                    param.add_(param.grad, alpha=-rate)
