"""Loss discrepancy control."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from mtopt.combiners._arguments import check_choice, check_non_negative
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._learned import LearnedVector, LearnsWeights, check_lr
from mtopt.combiners._losses import loss_values, require_above, softmax
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like


@register_combiner("ldc_mtl")
class LDCMTL(LearnsWeights, LossCombiner):
    """LDC-MTL: learned shares of the losses, with a price on how far the shares of neighbours are apart.

    With ``sigma = softmax(s)`` and the normalised losses ``m_k = l_k / tau_k``, model and s minimise
    ``sum_k sigma_k m_k + lam sum_{k<K} |sigma_k m_k - sigma_{k+1} m_{k+1}|`` together: the weights are its derivatives
    by l, and s takes a step of Adam down its derivative by s.

    Xiao et al., "LDC-MTL: balancing multi-task learning through scalable loss discrepancy control", 2025 (arXiv
    2502.08585), as the authors' code for three tasks. There sigma is the output of a small router network on the shared
    features; a rule sees no features, so here the router has no input and its K scores are learned. Their code for two
    tasks has ``|l_1 - l_2|``, without sigma (``price="raw"``).

    Args:
        lam: price of the discrepancy, >= 0. (The authors have 0.1 for Cityscapes, 0.05 for NYUv2.) Above 0.5 a weight
            can be negative.
        price: ``"shares"`` as above, or ``"raw"``, ``lam sum_{k<K} |m_k - m_{k+1}|``.
        normalize: ``"initial"``, tau the losses of the first step over the least of them; or None, tau = 1.
        lr: learning rate of s. (Theirs is the model's, 3e-4 and 8e-5.)

    The order of the objectives says who is a neighbour of whom. In the first step, with equal losses, the direction is
    the mean of the gradients. With ``"initial"`` every loss must be positive. An absent loss is
    nobody's neighbour, drops out of the softmax, and keeps its s.
    """

    symmetric = False
    search_space = {"lam": ("log", 0.01, 0.5), "lr": ("log", 1e-4, 1e-1)}  # noqa: RUF012  (a class-level constant)
    state = ("_learned", "_initial")
    _late_state = {"_initial": 1}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self,
        *,
        lam: float = 0.1,
        price: Literal["shares", "raw"] = "shares",
        normalize: Literal["initial"] | None = "initial",
        lr: float = 1e-3,
    ) -> None:
        check_non_negative(lam=lam)
        check_choice("shares", "raw", price=price)
        check_choice("initial", None, normalize=normalize)
        check_lr(lr)
        self.lam, self.price, self.normalize, self.lr = lam, price, normalize, lr
        self.positive_losses = normalize is not None
        self._vector = LearnedVector(0.0, lr=lr)
        self._initial: torch.Tensor | None = None  # the first loss of each objective, NaN before

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """The derivatives by the losses (K,), and one step of s."""
        values = loss_values(losses)
        objectives, total = self.objectives_of_rows(len(values))
        scores, chosen = self._vector.read(total), list(objectives)
        scale = self._scale(values, chosen, total)
        sigma, m = softmax(scores[chosen]), values / scale
        priced = sigma * m if self.price == "shares" else m
        apart = self.lam * np.sign(priced[:-1] - priced[1:])
        slope = np.append(apart, 0.0) - np.insert(apart, 0, 0.0)  # of the price, by what is priced
        by_shares = 1.0 + slope if self.price == "shares" else np.ones_like(sigma)
        by_m = sigma * by_shares if self.price == "shares" else sigma + slope
        by_sigma = m * by_shares
        self._vector.descend(sigma * (by_sigma - sigma @ by_sigma), chosen)
        return make_tensor_like(by_m / scale, losses)

    def _scale(self, values: Array, objectives: list[int], total: int) -> Array:
        """tau of the given objectives."""
        if self.normalize is None:
            return np.ones_like(values)
        if self._initial is None:
            self._initial = torch.full((total,), torch.nan, dtype=torch.float64)
        first = self._initial.numpy()  # the same memory
        require_above(self, values, objectives, why="it divides them by their first values")
        first[objectives] = np.where(np.isnan(first[objectives]), values, first[objectives])
        return np.asarray(first[objectives] / np.nanmin(first))
