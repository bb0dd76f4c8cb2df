"""Reward-free alignment for conflicting objectives."""

from __future__ import annotations

import math

import numpy as np
import torch

from mtopt.combiners._arguments import check_interval
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._preference import Preference, check_preference, shares_of
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like, normalize_gramian, read_gramian
from mtopt.solvers import conflict_averse


@register_combiner("raco")
class RACO(GramianCombiner):
    """RACO: CAGrad about the weighted gradient, whose correction gives no loss more than its weight.

    With the preference w, ``g_0 = sum_k w_k g_k`` and p the solution of CAGrad's dual,
    ``min_p g_p . g_0 + c ||g_0|| ||g_p||`` over the simplex, the correction's coefficients are clipped,
    ``q_k = min(p_k, w_k)`` (and not made to sum to one again), and ``d = g_0 + c (||g_0|| / ||g_q||) g_q``. So d stays
    in CAGrad's ball, ``|| d - g_0 || = c || g_0 ||``, but leans to the worst loss no more than the user asked for it.

    Chen, Li, Chen and Lin, "Reward-free alignment for conflicting objectives", ICML 2026 (arXiv 2602.02495); the
    clip second-hand, from descriptions of the paper that agree. The dual is solved exactly, with its gap in
    ``certificate``, which is about p and not about the clipped direction.

    Args:
        c: radius over the length of g_0, in [0, 1), for which the paper proves convergence.
        preference: (K,) weights w, non-negative, summing to one. Default: 1/K each.

    Without a conflict and with equal gradients d is (1 + c) times their mean. Where ``g_q`` vanishes d is g_0. Where
    gradients depend on each other p is not unique, and d depends on the one that is found and clipped.
    """

    search_space = {"c": ("uniform", 0.1, 0.9)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, c: float = 0.4, preference: Preference = None) -> None:
        check_interval("[0, 1)", c=c)
        check_preference(preference)
        self.c, self.preference = c, preference

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The weights (K,) of d for a Gramian (K, K)."""
        matrix, precision = read_gramian(gramian), self._precision(gramian)
        shares = shares_of(self.preference, *self.objectives_of_rows(len(matrix)))
        corrected, self.certificate = conflict_averse(gramian, self.c, precision, shares)
        added = np.maximum(corrected - shares, 0.0)
        clipped = np.minimum(added / added.sum(), shares) if added.any() else added
        cosines, norms = normalize_gramian(matrix)
        terms, reference = norms * clipped, norms * shares
        squared = float(terms @ cosines @ terms)
        if squared <= 64.0 * precision.products * terms.sum() ** 2:
            return make_tensor_like(shares, gramian)
        stretch = self.c * math.sqrt(max(float(reference @ cosines @ reference), 0.0) / squared)
        return make_tensor_like(shares + stretch * clipped, gramian)
