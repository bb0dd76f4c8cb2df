"""Gradient deconfliction by orthogonal projections onto subspaces."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import apply_pseudo_inverse, average_norms, make_tensor_like, normalize_live_rows, read_gramian


@register_combiner("gradops")
class GradOPS(GramianCombiner):
    """GradOPS: a gradient that conflicts with another keeps only what is orthogonal to all the others; then added.

    ``h_i = g_i`` if ``g_i . g_j >= 0`` for all j, and ``g_i`` minus its projection on the span of the others if not.
    Then ``h_i . g_j >= 0`` for all i and j: no loss rises to first order, in whatever order the gradients come. The
    direction is ``sum_i w_i h_i`` with ``w_i = r_i^alpha / mean_j r_j^alpha``, ``r_i = ||h_i||``,
    over the h that are not zero.

    Zhu et al., "Gradient deconfliction via orthogonal projections onto subspaces for multi-task learning", WSDM 2025
    (arXiv 2503.03438). The projections are as described there; what the ratios r measure is second-hand, and at the
    default alpha it does not matter. With C the cosines and ``x = C⁻¹ e_i``, the part of the unit gradient i that is
    orthogonal to the others is ``sum_k (x_k / x_i) u_k``: inner products suffice.

    Args:
        alpha: 0 adds the h_i up, alpha > 0 favours long ones, alpha < 0 short ones. (The authors report -3 to 3.)

    Without a conflict, and at alpha = 0, d is the sum of the gradients: K times that of ``linear``. A conflicting
    gradient in the span of the others has no part of its own and adds nothing: where there are more gradients than
    dimensions, d may be zero far from a Pareto-stationary point.
    """

    non_conflicting = True
    search_space = {"alpha": ("uniform", -3.0, 3.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, alpha: float = 0.0) -> None:
        if not np.isfinite(alpha):
            raise ValueError(f"alpha must be finite, found {alpha}")
        self.alpha = alpha

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The weights (K,) of ``sum_i w_i h_i`` for a Gramian (K, K)."""
        cosines, norms, live = normalize_live_rows(read_gramian(gramian))
        weights = np.zeros_like(norms)
        if len(cosines):
            lengths = norms[live] / average_norms(norms)
            kept = np.eye(len(cosines))  # row i: h_i in unit gradients, over ||g_i||
            precision = self._precision(gramian)
            for i in np.flatnonzero(precision.conflicts(cosines).any(axis=1)):
                solved, independent = apply_pseudo_inverse(cosines, kept[i], precision)
                kept[i] = solved / solved[i] if independent else 0.0
            ratios = lengths * np.sqrt(np.maximum((kept @ cosines * kept).sum(axis=1), 0.0))
            shares = np.power(ratios, self.alpha, where=ratios > 0.0, out=np.zeros_like(ratios))
            if shares.any():
                weights[live] = (shares / shares[ratios > 0.0].mean() * lengths) @ kept / lengths
        return make_tensor_like(weights, gramian)
