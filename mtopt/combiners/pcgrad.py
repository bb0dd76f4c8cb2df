"""Projecting conflicting gradients."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from mtopt.combiners._arguments import check_choice
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._random import rule_generator
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like, read_gramian


@register_combiner("pcgrad")
class PCGrad(GramianCombiner):
    """PCGrad: each gradient is projected off those it conflicts with, one after the other in random order; then added.

    For each i: ``h_i = g_i``; for j != i in random order: if ``h_i . g_j < 0`` then
    ``h_i -= (h_i . g_j / ||g_j||²) g_j``. The direction is ``sum_i h_i``.

    Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, algorithm 1. Every ``h_i`` is a combination of
    the gradients, so the Gramian suffices: the K projections run side by side on coefficients, not on gradients.

    Without a conflict the direction is the sum of the gradients: with K losses the step is K times that of
    ``linear``. Two conflicting gradients end up with neither loss rising to first order; with three or more, a later
    projection can bring an earlier conflict back.

    Args:
        reduction: ``"sum"`` (the paper's) or ``"mean"``, which divides by K.
        seed: of the order of the projections, drawn anew in each step. Two gradients have only one order.
        generator: a CPU generator to draw from instead of the rule's own.
    """

    stochastic = True
    stateful = True
    state = ("_random",)

    def __init__(
        self, *, reduction: Literal["sum", "mean"] = "sum", seed: int = 0, generator: torch.Generator | None = None
    ) -> None:
        check_choice("sum", "mean", reduction=reduction)
        self.reduction, self.seed, self.generator = reduction, seed, generator
        self._random = rule_generator(seed, generator)

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The sum over i of the coefficients of ``h_i``: (K,) for a Gramian (K, K)."""
        matrix = read_gramian(gramian)
        squares = np.where(matrix.diagonal() > 0.0, matrix.diagonal(), 1.0)
        if len(matrix) == 2:  # one order only
            weights = 1.0 - min(matrix[0, 1], 0.0) / squares
        else:
            weights = self._coefficients(matrix, squares).sum(axis=0)
        return make_tensor_like(weights / len(matrix) if self.reduction == "mean" else weights, gramian)

    def _coefficients(self, matrix: Array, squares: Array) -> Array:
        """Row i: those of ``h_i``. In each round every h_i meets the next of the others, in an order of its own."""
        each = np.arange(len(matrix))
        coefficients, products = np.eye(len(matrix)), matrix.copy()  # products[i, j] is h_i . g_j
        draws = torch.rand(matrix.shape, generator=self._random, dtype=torch.float64)
        for met in draws.numpy().argsort(axis=1).T:
            conflicts = np.where(met == each, 0.0, np.minimum(products[each, met], 0.0))
            steps = conflicts / squares[met]
            coefficients[each, met] -= steps
            products -= steps[:, None] * matrix[met]
        return coefficients
