"""Conflict-averse gradient descent."""

from __future__ import annotations

from typing import Literal

import torch

from mtopt.combiners._arguments import check_choice, check_finite
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like
from mtopt.solvers import conflict_averse


@register_combiner("cagrad")
class CAGrad(GramianCombiner):
    """CAGrad: the direction that lowers the worst loss most, within a ball around the mean gradient.

    ``d = argmax_d min_k g_k . d`` subject to ``|| d - g_0 || <= c || g_0 ||``, with ``g_0 = sum_k g_k / K``. With w the
    solution of its dual, ``d = g_0 + (c ||g_0|| / ||g_w||) g_w``, ``g_w = sum_k w_k g_k``. At c = 0 it is the mean of
    the gradients; for large c it points along MGDA's direction.

    Liu et al., "Conflict-averse gradient descent for multi-task learning", NeurIPS 2021. The dual is solved exactly,
    with its gap in ``certificate``; popular code runs a general solver from equal weights to a loose tolerance.

    Args:
        c: radius over the length of the mean, >= 0; convergence is proved for c < 1. (0.4 is the authors' value for
            NYUv2, LibMTL's default is 0.5.)
        rescale: 0 (the paper), 1 or 2: the direction is divided by 1, by ``1 + c²`` (the default of the authors' code
            and LibMTL), or by ``1 + c``. The Nash-MTL repository multiplies by K instead, to match a sum of losses.

    Without a conflict and with equal orthogonal gradients the direction is ``(1 + c)`` times their mean: c lengthens
    the step. A zero gradient counts in the mean, and not in the minimum. At a Pareto-stationary point whose ball holds
    no better, d is the projection of the mean on the cone along which no loss rises.
    """

    search_space = {"c": ("uniform", 0.1, 0.9)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, c: float = 0.4, rescale: Literal[0, 1, 2] = 0) -> None:
        check_finite(c=c)
        check_choice(0, 1, 2, rescale=rescale)
        self.c, self.rescale = c, rescale

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) of d for a Gramian (K, K): 1/K each, and what the dual adds."""
        weights, self.certificate = conflict_averse(gramian, self.c, self._precision(gramian))
        return make_tensor_like(weights / (1.0, 1.0 + self.c**2, 1.0 + self.c)[self.rescale], gramian)
