"""Stochastic direction-oriented multi-objective gradient descent."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._arguments import check_interval, check_non_negative, check_positive, check_whole
from mtopt.combiners._draws import DrawsCombiner, project_mass
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like, read_cross_gramian


@register_combiner("sdmgrad")
class SDMGrad(DrawsCombiner):
    """SDMGrad: MGDA kept near the mean gradient, with the program's gradient estimated from two independent draws.

    The program is ``min_w ||g_w + lam g_0||²`` over the simplex, ``g_w = J' w``, ``g_0`` the mean of the gradients.
    With ``C = J1 J2'`` divided by ``(mean_k sqrt(C_kk))²``, ``steps`` iterations of
    ``v <- momentum v + C w + lam C 1/K``, ``w <- Proj(w - rate v)`` start at the last step's w (at first 1/K) and at
    v = 0. Then ``d = (J3' w + lam g_0(J3)) / (1 + lam)``.

    Xiao et al., "Direction-oriented multi-objective learning: simple and provable stochastic algorithms", NeurIPS 2023,
    with the normalisation, the momentum and the number of iterations of the authors' code. That code has ``rate=10``.
    For supervised learning it loads three mini-batches, but writes their gradients into one buffer, so that C is made
    of the last alone; and it multiplies d by K. LibMTL, whose default rate this is, keeps the three apart. At such
    rates the iteration need not converge and may go from corner to corner of the simplex; a ``rate`` below ``1 / K``
    converges to the program's solution. ``lam = 0`` is MGDA's program, a large ``lam`` the mean.

    An entry ``C_kk`` below zero, which draws that disagree have, counts as zero; when all are, the weights stay.

    Args:
        lam: weight of the mean gradient, >= 0.
        steps: iterations of the weights in each step, >= 1.
        rate: their step size, > 0.
        momentum: of the iteration, in [0, 1).
    """

    search_space = {"lam": ("log", 0.03, 10.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, lam: float = 0.3, steps: int = 20, rate: float = 5.0, momentum: float = 0.5) -> None:
        check_non_negative(lam=lam)
        check_whole(1, steps=steps)
        check_positive(rate=rate)
        check_interval("[0, 1)", momentum=momentum)
        super().__init__()
        self.lam, self.steps, self.rate, self.momentum = lam, steps, rate, momentum

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``(w + lam / K) / (1 + lam)`` (K,) after updating w with the cross-Gramian ``J1 J2'`` (K, K)."""
        cross = read_cross_gramian(gramian)
        positions = self._joined(self.objectives_of_rows(len(cross))[0])
        current = self._lambda[positions].numpy()
        share = self.lam / len(self._members)  # an absent loss counts in the mean as zero
        scale = np.sqrt(cross.diagonal().clip(min=0.0)).mean()
        if scale > 0:
            cross = cross / scale / scale
            pull = cross.sum(1) * share
            mass = self._mass(positions)
            velocity = np.zeros_like(current)
            for _ in range(self.steps):
                velocity = self.momentum * velocity + cross @ current + pull
                current = project_mass(current - self.rate * velocity, mass)
            self._store(positions, current)
        return make_tensor_like((current + share) / (1.0 + self.lam), gramian)
