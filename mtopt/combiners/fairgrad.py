"""Fair resource allocation among losses."""

from __future__ import annotations

import torch

from mtopt.combiners._arguments import check_positive_or_none
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._fair_weights import FollowsFairWeights, clipped
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like
from mtopt.solvers import alpha_fair


@register_combiner("fairgrad")
class FairGrad(FollowsFairWeights, GramianCombiner):
    """FairGrad: the alpha-fair shares of descent, ``G w = w**(-1 / alpha)`` with w > 0.

    It maximises ``sum_k (g_k . d)**(1 - alpha) / (1 - alpha)`` over directions of a given length. alpha = 1 is
    Nash-MTL; alpha -> 0 gives the sum of the gradients, projected on the cone along which no loss rises (K times
    DualProj), alpha -> infinity equal descent of all losses, MGDA's direction where its weights are all positive.

    Ban and Ji, "Fair resource allocation in multi-task learning", ICML 2024. The weights minimise the strictly convex
    ``w' G w / 2 - sum_k w_k**(1 - 1/alpha) / (1 - 1/alpha)``, solved exactly (:func:`mtopt.solvers.alpha_fair`);
    published code runs least squares on the equation.

    Args:
        alpha: > 0. (2 in all four of the authors' supervised scripts and for MT10; LibMTL's default of 1 is Nash-MTL
            itself.) Above 10, with gradients of very different lengths, the weights span more decades than float64
            resolves: a SolverError says so.
        max_norm: the direction is shortened to this length when it is longer (1.0 in the authors' code, which clips
            the gradient). Default: never, as in the paper.

    K equal orthogonal gradients of norm s get the weight ``s**(-2 alpha / (1 + alpha))`` each: except at alpha -> 0 the
    length of the step is not that of the gradients, and with alpha = 2 it falls as they grow. A zero gradient gets
    weight 0. At a Pareto-stationary point there is no solution, and all weights are 0: where a combination of the
    gradients vanishes as far as these are known. The direction jumps there.

    With ``plan="matrix_free"`` the weights are followed instead, and ``certificate.residual`` is
    ``max_k |w_k**(1/alpha) g_k . d - 1|``.
    """

    non_conflicting = True
    search_space = {"alpha": ("log", 0.2, 5.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, alpha: float = 2.0, max_norm: float | None = None) -> None:
        if not 0 < alpha < float("inf"):
            raise ValueError(f"alpha must be finite and positive, found {alpha}")
        check_positive_or_none(max_norm=max_norm)
        self.alpha, self.max_norm = alpha, max_norm

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The alpha-fair weights (K,) of a Gramian (K, K)."""
        weights, self.certificate = alpha_fair(gramian, self.alpha, self._precision(gramian))
        return make_tensor_like(clipped(weights, gramian, self.max_norm), gramian)

    def _power(self) -> float:
        return 1.0 / self.alpha
