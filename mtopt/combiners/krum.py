"""Krum: the gradient that most others stand close to."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from mtopt.combiners._arguments import check_choice, check_whole
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like, read_gramian


@register_combiner("krum")
class Krum(GramianCombiner):
    """Krum: of K gradients the one closest to its ``K - f - 2`` nearest neighbours; Multi-Krum: the mean of m such.

    ``score_i = sum_j || g_i - g_j ||²`` over the K - f - 2 gradients nearest to g_i; the m lowest scores are averaged.
    Made to withstand f arbitrary gradients among K workers of one loss, for which ``K >= 2 f + 3`` is needed.

    Blanchard et al., "Machine learning with adversaries: Byzantine tolerant gradient descent", NeurIPS 2017.

    Args:
        byzantine: f, the number of gradients not to be trusted, >= 0.
        selected: m, the number of gradients averaged, >= 1.
        distance: ``"squared"`` (the paper), or ``"norm"``, the distances themselves (TorchJD).

    Ties, which two or three gradients always have, go to the first objective. With fewer than f + 3 gradients the one
    nearest neighbour counts; with fewer than m, all are averaged.
    """

    symmetric = False

    def __init__(
        self, *, byzantine: int = 0, selected: int = 1, distance: Literal["squared", "norm"] = "squared"
    ) -> None:
        check_whole(0, byzantine=byzantine)
        check_whole(1, selected=selected)
        check_choice("squared", "norm", distance=distance)
        self.byzantine, self.selected, self.distance = byzantine, selected, distance

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """1/m for the m gradients selected: (K,) for a Gramian (K, K)."""
        matrix = read_gramian(gramian)
        count = len(matrix)
        largest = matrix.diagonal().max()
        matrix = matrix / largest if largest > 0.0 else matrix
        squares = matrix.diagonal()
        # exactly symmetric, so that ties are ties; rounding may go below zero
        distances = np.maximum(squares + squares[:, None] - 2.0 * matrix, 0.0)
        distances = np.sqrt(distances) if self.distance == "norm" else distances
        np.fill_diagonal(distances, 0.0)
        neighbours = min(max(count - self.byzantine - 2, 1), count - 1)
        distances.sort(axis=1)
        scores = distances[:, 1 : neighbours + 1].sum(axis=1)
        objectives, _ = self.objectives_of_rows(count)
        chosen = np.lexsort((objectives, scores))[: self.selected]
        return make_tensor_like(np.isin(np.arange(count), chosen) / len(chosen), gramian)
