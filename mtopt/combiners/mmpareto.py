"""Pareto integration with an enhanced magnitude."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._arguments import check_positive
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like, normalize_gramian, read_gramian
from mtopt.solvers import min_norm

_VANISHING = 64.0
"""Errors of a cosine that the squared length of MGDA's direction must have, over the squared sum of its terms."""


@register_combiner("mmpareto")
class MMPareto(GramianCombiner):
    """MMPareto: the sum of the gradients, or in a conflict MGDA's direction made as long as that sum.

    Without a conflict ``d = gamma sum_k g_k``. Where ``g_i . g_j < 0`` for a pair, with MGDA's weights w,
    ``d = gamma max(K, || sum_k g_k || / || sum_k w_k g_k ||) sum_k w_k g_k``. No loss rises to first order, and d is
    never shorter than gamma times the sum.

    Wei and Hu, "MMPareto: boosting multimodal learning with innocent unimodal assistance", ICML 2024, for the loss of
    all modalities and that of one, on the encoder of that one. gamma is that of the authors' code, which lengthens each
    tensor by itself; here a gradient is one vector (``PerGroup(MMPareto(), by="tensor")`` solves tensor by tensor).
    More than two gradients, and a conflict in any pair of them, are this package's extension.

    Args:
        gamma: > 0, factor on the direction.

    With K equal gradients the step is gamma K times that of ``linear``. Where MGDA's direction cannot be told from zero
    (Pareto-stationary gradients), so is d.
    """

    non_conflicting = True
    search_space = {"gamma": ("log", 0.5, 4.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, gamma: float = 1.5) -> None:
        check_positive(gamma=gamma)
        self.gamma = gamma

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``gamma`` each without a conflict, else the lengthened min-norm weights: (K,) for a Gramian (K, K)."""
        matrix, precision = read_gramian(gramian), self._precision(gramian)
        self.certificate = None
        if not precision.conflicts(normalize_gramian(matrix)[0]).any():
            return make_tensor_like(np.full(len(matrix), self.gamma), gramian)
        shortest, self.certificate = min_norm(matrix, precision)
        shortest *= len(matrix)
        terms = float(shortest.dot(np.sqrt(matrix.diagonal())))
        squared = float(shortest.dot(matrix).dot(shortest))
        if squared <= _VANISHING * precision.products * terms**2:
            return make_tensor_like(np.zeros(len(matrix)), gramian)
        longer = max((float(matrix.sum()) / squared) ** 0.5, 1.0) if matrix.sum() > 0.0 else 1.0
        return make_tensor_like(self.gamma * longer * shortest, gramian)
