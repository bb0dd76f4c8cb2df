"""Gradient normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from mtopt._errors import CheckpointError
from mtopt.combiners._arguments import check_choice, check_non_negative
from mtopt.combiners._base import NormCombiner
from mtopt.combiners._learned import LearnedVector, LearnsWeights, check_lr
from mtopt.combiners._losses import Reference, check_reference, reference_of, require_above, softmax
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like, read_array

_ROUNDING = 1e-13
"""Two numbers nearer than this, relatively, are equal: Adam would blow their difference up to a full step."""


@register_combiner("gradnorm")
class GradNorm(LearnsWeights, NormCombiner):
    """GradNorm: learned weights that keep the weighted gradients at comparable norms, more for tasks that lag.

    With ``G_k = w_k ||g_k||``, the loss ratios ``q_k = l_k(t) / l_k(0)`` and ``r_k = q_k / mean(q)``, the weights go
    down the gradient of ``sum_k | G_k - c_k |``, where the targets ``c_k = mean(G) r_k^alpha`` are constants. The
    step of the model uses the weights from before that. They sum to K, and start from 1: with equal norms and equal
    rates they stay there, and the direction is the sum of the gradients.

    Chen et al., "GradNorm: gradient normalization for adaptive loss balancing in deep multitask networks", ICML 2018,
    algorithm 1. The paper takes the norms on the last shared layer, to save time; here they are those of whatever
    shared parameters the step is given, all of them as a rule (as in LibMTL).

    Args:
        alpha: how strongly a task that lags is favoured, >= 0; 0 makes the norms equal. Default 1.5, the paper's on
            NYUv2; for tasks of one kind it recommends less (0.12 on its toy).
        lr: Adam's learning rate for the weights. Default 0.025, the paper's.
        parametrization: ``"free"``, the paper's: w itself learns, then is divided by its mean, so that it sums to K.
            (The paper does not say what becomes of a weight that a step takes below zero; here it becomes zero, from
            where it can rise again.) ``"softmax"``, LibMTL's: ``w = K softmax(v)`` and v learns.
        initial_losses: (K,) positive values l(0). Default: the first loss that the rule sees of each objective. The
            paper advises log C for a cross entropy over C classes where the first loss depends on the initialisation;
            LibMTL takes the mean over a first epoch with equal weights.

    Losses must not be negative, nor the first one zero, since a loss ratio would say nothing: the loss of an objective
    to maximise is refused. Where no loss is left (all ratios zero) all rates count as equal. A loss that is absent
    from a batch leaves its weight as it is, up to the common division. A zero gradient pulls at no weight.
    """

    positive_losses = True
    search_space = {"alpha": ("choice", 0.0, 0.12, 0.5, 1.0, 1.5, 3.0), "lr": ("log", 1e-3, 0.1)}  # noqa: RUF012  (a class-level constant)
    state = ("_learned", "_first")

    def __init__(
        self,
        *,
        alpha: float = 1.5,
        lr: float = 0.025,
        parametrization: Literal["free", "softmax"] = "free",
        initial_losses: Reference = None,
    ) -> None:
        check_non_negative(alpha=alpha)
        check_choice("free", "softmax", parametrization=parametrization)
        check_lr(lr)
        check_reference(initial_losses, "initial_losses")
        if initial_losses is not None and not bool((torch.as_tensor(initial_losses) > 0).all()):
            raise ValueError(f"initial_losses must be positive, found {torch.as_tensor(initial_losses).tolist()}")
        self.alpha, self.lr, self.parametrization, self.initial_losses = alpha, lr, parametrization, initial_losses
        # the gradient has the unit of a gradient norm, and training at 1e-12 of it must not stand still: a tiny eps
        self._vector = LearnedVector(1.0 if parametrization == "free" else 0.0, lr=lr, eps=1e-100)
        self._first: list[float | None] = []

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the weights and the first losses of another GradNorm.

        Raises:
            CheckpointError: as for any rule, or there are not as many of the ones as of the others.
        """
        super().load_state_dict(state_dict)
        if len(self._first) not in (0, len(self._vector)):
            raise CheckpointError(
                f"GradNorm's state has {len(self._vector)} weights and {len(self._first)} first losses; it is truncated"
            )

    def weights(self, norms: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """w: (K,) for gradient norms (K,), or for a Gramian (K, K), and losses (K,). Then w takes its step."""
        lengths = read_array(norms)
        if lengths.ndim == 2:
            lengths = np.sqrt(lengths.diagonal())
        values = self._losses(losses, len(lengths)).numpy()
        objectives, total = self.objectives_of_rows(len(values))
        kept = list(objectives)
        numbers = self._vector.read(total)
        everyone = numbers if self.parametrization == "free" else total * softmax(numbers)
        weights = everyone[kept]

        weighted = weights * lengths
        gap = _difference(weighted, weighted.mean() * self._rates(values, objectives, total) ** self.alpha)
        slope = lengths * np.sign(gap)
        if self.parametrization == "free":
            self._vector.descend(slope, kept)
            moved = np.maximum(self._vector.read(total), 0.0)
            # a rate so large that every weight would vanish at once leaves them where they were
            self._vector.write(moved * (total / moved.sum()) if moved.sum() > 0 else numbers)
        else:
            self._vector.descend(weights * _difference(slope, np.full(len(kept), weights @ slope / total)), kept)
        return make_tensor_like(weights, norms)

    def _rates(self, values: Array, objectives: tuple[int, ...], total: int) -> Array:
        """r, the relative inverse training rates of the losses present."""
        require_above(self, values, objectives, why="it compares them with the first ones", inclusive=True)
        if self.initial_losses is not None:
            first = reference_of(self.initial_losses, objectives, total, "initial_losses")
        else:
            seen = self._first or [None] * total
            candidates = [value if seen[k] is None else seen[k] for k, value in zip(objectives, values, strict=True)]
            first = np.array(candidates, dtype=np.float64)
            why = "the first loss is the unit of the later ones"
            require_above(self, first, objectives, why=why, remedy="give initial_losses")
            found = dict(zip(objectives, first.tolist(), strict=True))
            self._first = [found.get(k, seen[k]) for k in range(total)]
        ratios = values / first
        mean = ratios.mean()
        return ratios / mean if mean > 0 else np.ones(len(values))


def _difference(first: Array, second: Array) -> Array:
    """``first - second``, and exactly zero where that is rounding error."""
    difference = first - second
    return np.where(np.abs(difference) <= _ROUNDING * (np.abs(first) + np.abs(second)), 0.0, difference)
