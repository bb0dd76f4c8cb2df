"""Projecting conflicting gradients."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

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
        self,
        *,
        reduction: Literal["sum", "mean"] = "sum",
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction must be 'sum' or 'mean', found {reduction!r}")
        self.reduction = reduction
        self.seed = seed
        self.generator = generator
        self._random = rule_generator(seed, generator)

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The sum over i of the coefficients of ``h_i``: (K,) for a Gramian (K, K)."""
        matrix = read_gramian(gramian)
        count = len(matrix)
        weights = self._two(matrix) if count == 2 else self._project(matrix)
        return make_tensor_like(weights / count if self.reduction == "mean" else weights, gramian)

    def _project(self, matrix: Array) -> Array:
        """The K lanes side by side: lane i holds the coefficients of ``h_i`` and its products with all gradients."""
        lanes = np.arange(len(matrix))
        norms = matrix.diagonal()
        coefficients = np.eye(len(matrix))
        products = matrix.copy()
        draws = torch.rand(len(matrix), len(matrix), generator=self._random, dtype=torch.float64)
        if matrix.min() >= 0.0:
            return np.ones(len(matrix))
        order = draws.numpy().argsort(axis=1)
        for other in order.T:
            met = products[lanes, other]
            rows = np.flatnonzero((met < 0.0) & (other != lanes))
            if len(rows):
                others = other[rows]
                steps = met[rows] / norms[others]
                coefficients[rows, others] -= steps
                products[rows] -= steps[:, None] * matrix[others]
        return np.asarray(coefficients.sum(0))

    @staticmethod
    def _two(matrix: Array) -> Array:
        """The closed form for two gradients, which have only one order."""
        (first, cross), (_, second) = matrix.tolist()
        return np.array([1.0 - cross / first, 1.0 - cross / second] if cross < 0.0 else [1.0, 1.0])
