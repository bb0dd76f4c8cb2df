"""Uncertainty weighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from mtopt.combiners._base import LossCombiner
from mtopt.combiners._learned import LearnedVector, LearnsWeights, check_lr
from mtopt.combiners._losses import loss_values, require_above
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like

Likelihood = Literal["gaussian", "softmax"]

_PRECISION: dict[str, float] = {"gaussian": 0.5, "softmax": 1.0}


@register_combiner("uw")
class UW(LearnsWeights, LossCombiner):
    """UW, uncertainty weighting: each loss is divided by a learned variance ``e^{s_k}`` of its task.

    ``sum_k a_k e^{-s_k} l_k + s_k / 2`` is minimised over the model and over s together, with ``a_k = 1/2`` for a
    Gaussian likelihood (regression, l_k a squared error) and ``a_k = 1`` for a softmax (classification, l_k a cross
    entropy). The weights are ``a_k e^{-s_k}``; afterwards s moves by one step of Adam on
    ``1/2 - a_k e^{-s_k} l_k``, which pulls s_k to ``log(2 a_k l_k)`` and hence ``w_k l_k`` to 1/2: in the long run
    the rule is half of :class:`~mtopt.combiners.scale_invariant.SI`, late by the memory of Adam. In the first step
    the weights are 1/2 (Gaussian): half the sum of the gradients.

    Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses for scene geometry and
    semantics", CVPR 2018. The paper learns s with the model's own optimizer; here it has one of its own. Popular code
    (LibMTL, the Nash-MTL repository) takes every task for Gaussian, as the default here; LibMTL starts from s = -0.5.

    Args:
        likelihood: ``"gaussian"`` or ``"softmax"`` for all the losses, or one of them for each.
        lr: Adam's learning rate for s. Default 0.025, that of the UW baselines of GradNorm and Nash-MTL.
        start: s before the first step.

    A negative loss, such as that of an objective to maximise, would drive its weight to infinity, as the sum has no
    minimum then: it raises ValueError. A loss that is zero, or absent from a batch, leaves its s as it is.
    """

    positive_losses = True
    search_space = {"lr": ("log", 1e-3, 0.1)}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self, *, likelihood: Likelihood | Sequence[Likelihood] = "gaussian", lr: float = 0.025, start: float = 0.0
    ) -> None:
        for name in [likelihood] if isinstance(likelihood, str) else likelihood:
            if name not in _PRECISION:
                raise ValueError(f"likelihood must be 'gaussian' or 'softmax', or one for each loss, found {name!r}")
        check_lr(lr)
        self.likelihood, self.lr, self.start = likelihood, lr, start
        self._vector = LearnedVector(start, lr=lr)

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``a_k e^{-s_k}``: (K,) for losses (K,). Then s takes its step."""
        values = loss_values(losses)
        objectives, total = self.objectives_of_rows(len(values))
        require_above(self, values, objectives, why="a negative one would get an endless weight", inclusive=True)
        kept = list(objectives)
        weights = self._factors(total)[kept] * np.exp(-self._vector.read(total)[kept])
        seen = values > 0
        self._vector.descend((0.5 - weights * values)[seen], np.asarray(kept)[seen].tolist())
        return make_tensor_like(weights, losses)

    def _factors(self, total: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        names = [self.likelihood] * total if isinstance(self.likelihood, str) else self.likelihood
        if len(names) != total:
            raise ValueError(f"likelihood has {len(names)} entries for {total} objectives; give one, or one for each")
        return np.array([_PRECISION[name] for name in names])
