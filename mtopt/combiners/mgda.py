"""The multiple-gradient descent algorithm."""

from __future__ import annotations

import torch

from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._matrix_free import FollowsWeights
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like
from mtopt.solvers import min_norm


@register_combiner("mgda")
class MGDA(FollowsWeights, GramianCombiner):
    """MGDA: the shortest vector in the convex hull of the gradients.

    ``w = argmin_{w >= 0, sum w = 1} || sum_k w_k g_k ||``, ``d = sum_k w_k g_k``. Then ``g_k . d >= ||d||²`` for
    every k: no loss rises to first order, and ``d = 0`` exactly at Pareto-stationary points.

    Désidéri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization", C. R. Math. 2012; Sener and
    Koltun, "Multi-task learning as multi-objective optimization", NeurIPS 2018.

    The program is solved exactly for any K (:func:`mtopt.solvers.min_norm`), with its duality gap in ``certificate``.
    Popular code runs Frank-Wolfe for 100 to 250 iterations, which can leave ``d`` 28 % too long, clips the two-task
    weight to [0.001, 0.999], or multiplies by K; this is the paper's rule, with weights that sum to one. The norm of
    ``d`` never exceeds the shortest gradient's: a loss with small gradients sets the pace.

    With ``plan="matrix_free"`` the weights are followed instead, and ``certificate.residual`` is their duality gap
    ``d.d - min_k g_k . d`` over ``||d||²``: below 1 no loss rises to first order, and the exact direction d* is within
    ``||d - d*|| <= sqrt(residual) ||d||``.
    """

    non_conflicting = True

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The min-norm weights (K,) of a Gramian (K, K)."""
        weights, self.certificate = min_norm(gramian, self._precision(gramian))
        return make_tensor_like(weights, gramian)

    def _solution(self, gramian: Array) -> Array:
        return min_norm(gramian)[0]

    def _error(self, weights: Array, products: Array) -> float:
        square = float(weights @ products)
        return (square - float(products.min())) / square if square > 0.0 else 0.0
