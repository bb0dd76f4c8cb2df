"""Bi-level unlearning."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from mtopt.combiners._arguments import check_choice, check_positive
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._roles import RetainsAndForgets, check_roles
from mtopt.linalg import make_tensor_like, normalize_gramian, read_gramian


@register_combiner("blur")
class BLUR(RetainsAndForgets, GramianCombiner):
    """BLUR: forgetting first, and retaining only as far as it does not touch that.

    ``d = g_R + xi g_F`` with ``xi = gamma - (g_R . g_F) / ||g_F||²``: the retain gradient's part across the forget
    gradient, plus gamma times the latter. Then ``d . g_F = gamma ||g_F||²``, and ``d . g_R`` may be negative. Here
    ``g_F`` is that of a forget loss to be minimised, as in the paper (NPO, or an ``Objective("forget", sense="max")``).

    Reisizadeh et al., "BLUR: a bi-level optimization approach for LLM unlearning", EACL 2026 (arXiv 2506.08164): the
    forget problem is the lower level. The projection is always done, not only in conflict. Where the two are orthogonal
    ``d`` is ``g_R + gamma g_F``; where they are equal, it is ``gamma g_F``.

    Args:
        gamma: pull to the forget objective (to the lower level's), > 0.
        lower: ``"forget"`` (the paper's), or ``"retain"``: the roles swapped, as the authors' code offers, with
            ``d = g_F + (gamma - (g_R . g_F) / ||g_R||²) g_R``.
        retain, forget: the positions of the two objectives.

    A zero gradient, or an absent loss, leaves the other as it is (times gamma if it is the lower level's).
    """

    search_space = {"gamma": ("log", 0.03, 10.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self, *, gamma: float = 1.0, lower: Literal["forget", "retain"] = "forget", retain: int = 0, forget: int = 1
    ) -> None:
        check_positive(gamma=gamma)
        check_choice("forget", "retain", lower=lower)
        check_roles(retain, forget)
        self.gamma, self.lower, self.retain, self.forget = gamma, lower, retain, forget

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """One for the upper objective, xi for the lower: (2,) for a Gramian (2, 2)."""
        matrix = read_gramian(gramian)
        upper, lower = self.rows_of_roles(len(matrix))
        upper, lower = (lower, upper) if self.lower == "retain" else (upper, lower)
        cosines, norms = normalize_gramian(matrix)
        weights = np.ones(len(matrix))
        if lower is not None:
            weights[lower] = self.gamma
            if upper is not None and norms[lower] > 0:
                weights[lower] -= cosines[upper, lower] * (norms[upper] / norms[lower])
        return make_tensor_like(weights, gramian)
