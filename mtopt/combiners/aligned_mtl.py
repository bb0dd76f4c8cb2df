"""Independent component alignment."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch

from mtopt.combiners._arguments import check_choice
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._preference import Preference, check_preference, shares_of
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import (
    Array,
    TwoGradients,
    find_singular_values,
    make_tensor_like,
    normalize_live_rows,
    read_gramian,
    read_two,
    take_block,
)


@register_combiner("aligned_mtl")
class AlignedMTL(GramianCombiner):
    """Aligned-MTL: the gradients, with all their principal components made equally long, combined linearly.

    With the singular value decomposition ``J = V diag(sigma) W'``, ``d = J' B p`` with
    ``B = sigma_min V diag(1 / sigma) V'``. The matrix ``B J`` has condition number 1: its non-zero singular values all
    equal the smallest of J.

    Senushkin et al., "Independent component alignment for multi-task learning", CVPR 2023. Where the norms differ by
    many decades, the eigenvectors of the Gramian in float32, and even in float64, are lost to rounding; here they come
    from a factor of the scaled Gramian, to full relative accuracy. (LibMTL's and the authors' own code calls
    ``torch.symeig``, which PyTorch 2 no longer has.)

    Args:
        preference: (K,) importances p, non-negative, summing to one. Default: p_k = 1, as in the authors' code. An
            equal preference therefore gives the default direction divided by K.
        scale_mode: the common length is ``"min"``, the smallest non-zero singular value (the paper); ``"median"``, the
            lower median; or ``"rmse"``, the root of their mean square (options of the authors' code).

    Equal orthogonal gradients are left as they are, and summed. The direction is never longer than ``sqrt(K)`` times
    the smallest singular value: nearly dependent gradients make the step short. Dependent ones, as far as gradients are
    known, drop the components that vanish, and the step jumps to the next singular value, as in the authors' code; a
    zero gradient gets weight 0.
    """

    continuous = False
    search_space = {"scale_mode": ("choice", "min", "median", "rmse")}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, preference: Preference = None, scale_mode: Literal["min", "median", "rmse"] = "min") -> None:
        check_preference(preference)
        check_choice("min", "median", "rmse", scale_mode=scale_mode)
        self.preference, self.scale_mode = preference, scale_mode

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``B p``: (K,) for a Gramian (K, K)."""
        matrix = read_gramian(gramian)
        tolerance = self._precision(gramian).rank_share(len(matrix))
        importances = np.ones(len(matrix))
        if self.preference is not None:
            importances = shares_of(self.preference, *self.objectives_of_rows(len(matrix)))
        two = read_two(matrix)
        if two is not None and two.independent(tolerance):
            return make_tensor_like(self._two(two, importances), gramian)
        cosines, norms, live = normalize_live_rows(matrix)
        weights = np.zeros_like(norms)
        if len(cosines):
            values, vectors = find_singular_values(take_block(matrix, live), cosines, norms[live], tolerance)
            weights[live] = vectors.dot(importances[live].dot(vectors) * (self._common(values) / values))
        return make_tensor_like(weights, gramian)

    def _two(self, two: TwoGradients, importances: Array) -> Array:
        """The closed form for two independent gradients.

        ``G^(-1/2) = (adj(G) + delta) / (delta sqrt(tr G + 2 delta))`` with ``delta = sqrt(det G) = sigma_1 sigma_2``.
        """
        first, second, cosine, _ = two
        one, other = importances.tolist()
        cross = cosine * first * second
        delta = first * second * math.sqrt((1.0 - cosine) * (1.0 + cosine))
        trace = first**2 + second**2
        largest = math.sqrt(0.5 * (trace + math.hypot((first - second) * (first + second), 2.0 * cross)))
        common = math.sqrt(0.5 * trace) if self.scale_mode == "rmse" else delta / largest
        factor = common / delta / math.sqrt(trace + 2.0 * delta)
        return factor * np.array([(second**2 + delta) * one - cross * other, (first**2 + delta) * other - cross * one])

    def _common(self, values: Array) -> float:
        """The length given to every component; ``values`` are the singular ones, largest first."""
        if self.scale_mode == "min":
            return float(values[-1])
        if self.scale_mode == "median":
            return float(values[len(values) // 2])
        return float(values[0] * np.sqrt(np.mean((values / values[0]) ** 2)))
