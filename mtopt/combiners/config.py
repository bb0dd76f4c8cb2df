"""Conflict-free inverse gradients."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._preference import Preference, check_preference, shares_of
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import (
    Array,
    TwoGradients,
    apply_pseudo_inverse,
    make_tensor_like,
    normalize_live_rows,
    read_gramian,
    read_two,
)


@register_combiner("config")
class ConFIG(GramianCombiner):
    """ConFIG: the direction at the same angle to every gradient, as long as the gradients agree.

    With U the unit gradients in rows and ``v = U⁺ 1``, ``d = (sum_k g_k . v / ||v||) v / ||v||``: the cosines with all
    gradients are equal, and the length is the sum of the gradients' projections, which shrinks as they conflict.

    Liu, Chu and Thuerey, "ConFIG: towards conflict-free training of physics informed neural networks", ICLR 2025.
    ``U⁺ 1 = U' (U U')⁺ 1`` needs the K x K cosines alone. A pseudo-inverse of the K x D matrix in float32, as in the
    code that is around, drops everything below ``D eps`` and returns zero from 8 million parameters on.

    Args:
        preference: (K,) relative cosines with the gradients, non-negative, summing to one. Default: equal ones.

    K equal orthogonal gradients give their sum, in direction and length: the step is K times that of ``linear``.
    Linearly dependent gradients take the nearest cosines there are, as the pseudo-inverse does, and opposite ones give
    zero. That is a jump: of gradients that are nearly dependent the cosines are equal, and the step is short. A zero
    gradient gets weight 0. (M-ConFIG, which differentiates one loss per step and averages over time, is another rule.)
    """

    scale_invariant = True

    def __init__(self, *, preference: Preference = None) -> None:
        check_preference(preference)
        self.preference = preference

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) of d for a Gramian (K, K)."""
        matrix = read_gramian(gramian)
        target = shares_of(self.preference, *self.objectives_of_rows(len(matrix)))
        precision = self._precision(gramian).of_numbers()
        two = read_two(matrix)
        if two is not None and two.independent(precision.rank_share(2)):
            return make_tensor_like(_two(two, target), gramian)
        cosines, norms, live = normalize_live_rows(matrix)
        weights = np.zeros_like(norms)
        target = target[live]
        if target.any():
            target = target / target.max()
            solved, _ = apply_pseudo_inverse(cosines, target, precision)
            reached = cosines.dot(solved)
            squared = float(solved.dot(reached))  # ||v||²
            if squared > precision.rank_share(len(cosines)) * float(np.abs(solved).sum()) ** 2:
                lengths = norms[live]
                scale = lengths.max()
                lengths = lengths / scale
                weights[live] = solved * (float(lengths.dot(reached)) / squared) / lengths
        return make_tensor_like(weights, gramian)


def _two(two: TwoGradients, target: Array) -> Array:
    """The closed form for two independent gradients."""
    one, other = target.tolist()
    first, second, cosine, _ = two
    solved = one - cosine * other, other - cosine * one  # (1 - c²) times v
    factor = (first * one + second * other) / (one * solved[0] + other * solved[1])
    return np.array([solved[0] * factor / first, solved[1] * factor / second])
