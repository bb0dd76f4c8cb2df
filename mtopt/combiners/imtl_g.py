"""Impartial multi-task learning, on gradients."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from mtopt.combiners._arguments import check_choice
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import apply_pseudo_inverse, make_tensor_like, normalize_live_rows, read_gramian, read_two


@register_combiner("imtl_g")
class IMTLG(GramianCombiner):
    """IMTL-G: the combination whose projections on all gradients are equal, with weights that sum to one.

    ``u_k . d`` is the same for every unit gradient ``u_k = g_k / ||g_k||``, and ``sum_k w_k = 1``. With C the cosines
    and s the norms, w is proportional to ``C⁻¹ 1 / s``. Weights may be negative.

    Liu et al., "Towards impartial multi-task learning", ICLR 2021, which solves a (K-1) x (K-1) system in the gradients
    themselves; this one needs inner products only. For linearly dependent gradients, which the paper leaves out, the
    shortest solution of ``C x = 1`` is taken; where there is none (two opposite gradients beside a third, more
    gradients than dimensions) all weights are 0, the limit of ever shorter steps.

    Args:
        uphill: with three gradients and more ``C⁻¹ 1 / s`` can have a negative sum. The paper's weights, which sum to
            one all the same, then make d point against every gradient: all losses rise. ``"keep"`` does as the paper
            and the code that follows it, ``"reverse"`` takes -d.

    Equal orthogonal gradients give their mean. A zero gradient has no direction and gets weight 0. Where the weights'
    sum vanishes, no multiple of them has the sum one, and all are 0.
    """

    continuous = False

    def __init__(self, *, uphill: Literal["keep", "reverse"] = "keep") -> None:
        check_choice("keep", "reverse", uphill=uphill)
        self.uphill = uphill
        self.scale_invariant = uphill == "reverse"  # the sign of the sum depends on the gradients' lengths

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The impartial weights (K,) of a Gramian (K, K)."""
        matrix = read_gramian(gramian)
        two = read_two(matrix)
        if two is not None:  # the same for every angle, opposite gradients included
            total = two.first + two.second
            return make_tensor_like(np.array([two.second / total, two.first / total]), gramian)
        cosines, norms, live = normalize_live_rows(matrix)
        weights = np.zeros_like(norms)
        if len(cosines):
            precision = self._precision(gramian)
            scaled, solvable = norms[live].min() / norms[live], True
            if len(cosines) > 2:
                solved, solvable = apply_pseudo_inverse(cosines, np.ones(len(cosines)), precision)
                # what rounding leaves of zero, divided by a short gradient's norm, would count
                known = np.abs(solved) > len(solved) * precision.products * np.abs(solved).sum()
                scaled = scaled * np.where(known, solved, 0.0)
            total = float(scaled.sum())
            if solvable and abs(total) > len(scaled) * precision.linear * np.abs(scaled).sum():
                weights[live] = scaled / (abs(total) if self.uphill == "reverse" else total)
        return make_tensor_like(weights, gramian)
