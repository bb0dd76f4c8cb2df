"""The mean gradient projected on the cone along which no loss rises."""

from __future__ import annotations

import torch

from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._preference import Preference, check_preference, shares_of
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like
from mtopt.solvers import project_dual_cone


@register_combiner("dualproj")
class DualProj(GramianCombiner):
    """DualProj: the weighted mean gradient, projected on the cone ``{d : g_k . d >= 0 for all k}``.

    ``d = P(sum_k p_k g_k)``: the direction nearest to the mean along which no loss rises; without a conflict with the
    mean, the mean itself.

    The name is that of Quinton and Rey, 2024 (arXiv 2406.16232), for the projection that Lopez-Paz and Ranzato,
    "Gradient episodic memory for continual learning", NeurIPS 2017, apply to one gradient: see :class:`GEM`. Solved
    exactly (:func:`mtopt.solvers.project_dual_cone`); the authors' library adds 1e-4 of the trace to the Gramian.

    Args:
        preference: (K,) shares p, non-negative, summing to one. Default: 1/K each.
    """

    non_conflicting = True

    def __init__(self, *, preference: Preference = None) -> None:
        check_preference(preference)
        self.preference = preference

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) of d for a Gramian (K, K): none is smaller than its share, or all are zero and d is."""
        shares = shares_of(self.preference, *self.objectives_of_rows(len(gramian)))
        weights, self.certificate = project_dual_cone(gramian, shares, precision=self._precision(gramian))
        return make_tensor_like(weights, gramian)
