"""Projections on the cone along which no loss rises."""

from __future__ import annotations

import torch

from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._preference import Preference, check_preference, shares_of
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like
from mtopt.solvers import project_dual_cone, project_rows


@register_combiner("upgrad")
class UPGrad(GramianCombiner):
    """UPGrad: each gradient projected on the cone ``{d : g_k . d >= 0 for all k}``, then averaged.

    ``d = sum_i p_i P(g_i)``: unlike a projection of the average, every gradient keeps a share of the step. Two
    conflicting gradients give half of PCGrad's direction; without a conflict it is the mean.

    Quinton and Rey, "Jacobian descent for multi-objective optimization", 2024 (arXiv 2406.16232). The K projections are
    solved exactly, many of them together (:func:`mtopt.solvers.project_rows`), so no loss rises to first order, however
    different the gradients' lengths; opposite gradients project to zero. The authors' library adds 1e-4 of the trace to
    the Gramian, which lets losses with gradients 30 times shorter than the others rise.

    Args:
        preference: (K,) shares p, non-negative, summing to one. Default: 1/K each.
    """

    non_conflicting = True

    def __init__(self, *, preference: Preference = None) -> None:
        check_preference(preference)
        self.preference = preference

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) of d for a Gramian (K, K); a projection that cannot be told from zero adds nothing."""
        shares = shares_of(self.preference, *self.objectives_of_rows(len(gramian)))
        projections, self.certificate = project_rows(gramian, self._precision(gramian))
        return make_tensor_like(shares.dot(projections), gramian)


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
