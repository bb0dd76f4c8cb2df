"""Gradient vaccine."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from mtopt.combiners._arguments import check_choice, check_interval
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._random import rule_generator
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, Precision, make_tensor_like, normalize_gramian, read_gramian

_NEAR_ONE = 1e-12
"""How near to one a cosine with another gradient may be aimed at, which is reached only at an infinite weight."""


@register_combiner("gradvac")
class GradVac(GramianCombiner):
    """GradVac: each gradient is turned towards those it is less aligned with than it used to be; then added.

    For each i: ``h = g_i``; for j != i in random order: with the cosine c of h and g_j, if ``c < r_ij`` then
    ``h += ||h|| (r sqrt(1 - c²) - c sqrt(1 - r²)) / (||g_j|| sqrt(1 - r²)) g_j``, whose cosine with g_j is r;
    and ``r_ij <- (1 - beta) r_ij + beta c``. The targets r start from 0, where the rule is PCGrad. The direction is the
    sum of the h.

    Wang et al., "Gradient vaccine: investigating and improving multi-task optimization in massively multilingual
    models", ICLR 2021, algorithm 1. Every h is a combination of the gradients, so the Gramian suffices: the K of them
    are turned side by side. The paper works on the whole model, or apart on each layer: ``PerGroup(GradVac(), ...)``.

    Args:
        beta: rate of the targets, in (0, 1]. The default, which one port has, too, averages over some hundred steps;
            LibMTL and TorchJD take 0.5.
        update: the target moves ``"always"`` (the paper, and LibMTL by now), or ``"conflict"``, only where h was turned
            (LibMTL before): it can then only fall.
        seed: of the order of the pairs, drawn anew in each step.
        generator: a CPU generator to draw from instead of the rule's own.

    Without a conflict in the first step the direction is the sum of the gradients: with K losses the step is K times
    that of ``linear``. A zero gradient turns nobody, and its targets stay; nor is an h turned of which nothing is left
    that their products could tell from zero. The state is K x K numbers.
    """

    stochastic = True
    stateful = True
    search_space = {"beta": ("log", 0.001, 0.5)}  # noqa: RUF012  (a class-level constant)
    state = ("_targets", "_random")

    def __init__(
        self,
        *,
        beta: float = 0.01,
        update: Literal["always", "conflict"] = "always",
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        check_interval("(0, 1]", beta=beta)
        check_choice("always", "conflict", update=update)
        self.beta, self.update, self.seed, self.generator = beta, update, seed, generator
        self._random = rule_generator(seed, generator)
        self._targets = torch.zeros(0, 0, dtype=torch.float64)  # r, over all objectives

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The sum over i of the coefficients of ``h``: (K,) for a Gramian (K, K)."""
        precision = self._precision(gramian)
        cosines, norms = normalize_gramian(read_gramian(gramian))
        objectives, total = self.objectives_of_rows(len(norms))
        if len(self._targets) != total:
            if len(self._targets):
                raise ValueError(f"this GradVac has met {len(self._targets)} objectives, found {total}; create another")
            self._targets = torch.zeros(total, total, dtype=torch.float64)
        live = norms > 0.0
        picked = np.ix_(objectives, objectives)
        targets = self._targets.numpy()[picked]
        turned = self._turn(cosines, live, targets, precision)  # in unit gradients, of h_i / ||g_i||
        self._targets.numpy()[picked] = targets
        lengths = np.where(live, norms, 1.0)
        return make_tensor_like((turned * lengths[:, None] / lengths).sum(axis=0), gramian)

    def _turn(self, cosines: Array, live: npt.NDArray[np.bool_], targets: Array, precision: Precision) -> Array:
        """Coefficients of each h_i, one in each row; ``targets`` move in place."""
        count = len(cosines)
        reachable = 1.0 - max(_NEAR_ONE, precision.products)
        share = count * precision.products
        lanes = np.arange(count)
        turned = np.eye(count)
        if count == 1 or not live.any():
            return turned
        draws = torch.rand(count, count, generator=self._random, dtype=torch.float64).numpy()
        np.fill_diagonal(draws, 2.0)
        order = draws.argsort(axis=1)[:, :-1]  # without the lane itself
        products = cosines.copy()  # h_i . u_j
        for other in order.T:
            squares = (turned * products).sum(axis=1)
            vanished = share * np.abs(turned).sum(axis=1) ** 2  # below this nothing but rounding is left of h
            lengths = np.sqrt(np.maximum(squares, vanished))
            met = live & live[other] & (squares > vanished)
            cosine = np.minimum(np.maximum(products[lanes, other] / lengths, -1.0), 1.0)
            target = targets[lanes, other]
            aim = np.minimum(np.maximum(target, -reachable), reachable)
            low = met & (cosine < np.minimum(target, reachable))
            sine = np.sqrt((1.0 - aim) * (1.0 + aim))
            step = lengths * (aim * np.sqrt((1.0 - cosine) * (1.0 + cosine)) / sine - cosine)
            step = np.where(low, step, 0.0)
            turned[lanes, other] += step
            products += step[:, None] * cosines[other]
            moved = low if self.update == "conflict" else met
            targets[lanes, other] = np.where(moved, target + self.beta * (cosine - target), target)
        return turned
