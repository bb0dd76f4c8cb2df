"""The loss balance of impartial multi-task learning."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._base import LossCombiner
from mtopt.combiners._learned import LearnedVector, LearnsWeights, check_lr
from mtopt.combiners._losses import loss_values, require_above
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like


@register_combiner("imtl_l")
class IMTLL(LearnsWeights, LossCombiner):
    """IMTL-L: ``sum_k e^{s_k} l_k - s_k``, minimised over the model and over s together.

    The weights are ``e^{s_k}``; afterwards s moves by one step of Adam on ``e^{s_k} l_k - 1``. Its minimum is at
    ``e^{s_k} l_k = 1``, whatever the scale of the loss: in the long run the rule is
    :class:`~mtopt.combiners.scale_invariant.SI`, late by the memory of Adam. In the first step the weights are 1: the
    sum of the gradients.

    Liu et al., "Towards impartial multi-task learning", ICLR 2021, which learns s with the model's own
    optimizer, as does LibMTL; here it has one of its own. The gradient balance of the same paper is ``imtl_g``.

    Args:
        lr: Adam's learning rate for s. The paper gives none; default 0.025, as for :class:`UW`, whose s has the
            same meaning with the opposite sign.
        start: s before the first step.

    A negative loss, such as that of an objective to maximise, would drive its weight to infinity, as the sum has no
    minimum then: it raises ValueError. A loss that is zero, or absent from a batch, leaves its s as it is.
    """

    positive_losses = True
    search_space = {"lr": ("log", 1e-3, 0.1)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, lr: float = 0.025, start: float = 0.0) -> None:
        check_lr(lr)
        self.lr, self.start = lr, start
        self._vector = LearnedVector(start, lr=lr)

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``e^{s_k}``: (K,) for losses (K,). Then s takes its step."""
        values = loss_values(losses)
        objectives, total = self.objectives_of_rows(len(values))
        require_above(self, values, objectives, why="a negative one would get an endless weight", inclusive=True)
        kept = list(objectives)
        weights = np.exp(self._vector.read(total)[kept])
        seen = values > 0
        self._vector.descend((weights * values - 1.0)[seen], np.asarray(kept)[seen].tolist())
        return make_tensor_like(weights, losses)
