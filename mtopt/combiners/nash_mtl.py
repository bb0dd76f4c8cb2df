"""Multi-task learning as a bargaining game."""

from __future__ import annotations

import torch

from mtopt.combiners._arguments import check_positive_or_none
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._fair_weights import FollowsFairWeights, clipped
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like
from mtopt.solvers import alpha_fair


@register_combiner("nash_mtl")
class NashMTL(FollowsFairWeights, GramianCombiner):
    """Nash-MTL: the Nash bargaining solution, ``G w = 1 / w`` with w > 0.

    It maximises ``sum_k log g_k . d`` over directions of a given length: each loss falls by the same share of its
    weighted gradient, ``w_k g_k . d = 1``, so that multiplying a loss by c > 0 divides its weight by c and changes
    nothing else. Two gradients give ``w_k = 1 / (||g_k|| sqrt(1 + cos))``, the bisector.

    Navon et al., "Multi-task learning as a bargaining game", ICML 2022. The weights minimise the strictly convex
    ``w' G w / 2 - sum_k log w_k``, solved exactly (:func:`mtopt.solvers.alpha_fair`). The authors' code runs up to 20
    rounds of a convex approximation and keeps what it has when they fail, LibMTL equal weights when its solver is
    missing; it also updates the weights every n steps, which here is ``Every(NashMTL(), n)``.

    Args:
        max_norm: the direction is shortened to this length when it is longer (1.0 in the authors' code, which clips
            the gradient). Default: never, as in the paper.

    The direction always has the length ``sqrt(K)``, whatever the gradients' lengths: the learning rate alone sets the
    step. A zero gradient has nothing to bargain for and gets weight 0. At a Pareto-stationary point there is no
    solution, and all weights are 0: where a combination of the gradients vanishes as far as these are known. The
    direction jumps there.

    With ``plan="matrix_free"`` the weights are followed instead, the length is exact in every step, and
    ``certificate.residual`` is ``max_k |w_k g_k . d - 1|``.
    """

    scale_invariant = True
    non_conflicting = True
    search_space = {"max_norm": ("choice", None, 1.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, max_norm: float | None = None) -> None:
        check_positive_or_none(max_norm=max_norm)
        self.max_norm = max_norm

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The bargaining weights (K,) of a Gramian (K, K)."""
        weights, self.certificate = alpha_fair(gramian, precision=self._precision(gramian))
        return make_tensor_like(clipped(weights, gramian, self.max_norm), gramian)
