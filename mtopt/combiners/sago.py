"""Sign-aligned gradient optimization."""

from __future__ import annotations

from typing import Literal

import torch

from mtopt.combiners._arguments import check_choice, check_non_negative
from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._roles import RetainsAndForgets, check_roles


@register_combiner("sago")
class SAGO(RetainsAndForgets, JacobianCombiner):
    """SAGO: the forget gradient, but the retain gradient at each coordinate where their signs differ.

    At a coordinate with ``g_R g_F < 0`` it is ``d = alpha g_R``, and ``d = gamma g_F`` at the others; with
    ``elsewhere="both"`` it is ``gamma g_F + alpha g_R`` there. Every product ``d_j g_Rj`` is at least zero, so the
    retain loss does not rise to first order; the forget loss may. Here ``g_F`` is the gradient of a forget loss to be
    minimised, as in the paper (``Objective("forget", sense="max")`` flips the sign of the likelihood).

    SAGO, ACL 2026 (arXiv 2604.14808), as the authors' code has it: ``"forget"`` is its default, and ``"both"`` its
    variant that prefers to retain. A zero has no sign that differs.

    Args:
        alpha, gamma: factors on the retain and the forget gradient, >= 0. Default: 1 each.
        elsewhere: ``"forget"`` or ``"both"``, what is taken where the signs agree.
        retain, forget: the positions of the two objectives.

    A loss that is absent from the batch counts as a zero gradient: without the retain loss d is ``gamma g_F``, without
    the forget loss zero, or ``alpha g_R`` with ``"both"``. More or fewer than two objectives are refused.
    """

    shardable = True
    search_space = {"alpha": ("log", 0.1, 10.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        gamma: float = 1.0,
        elsewhere: Literal["forget", "both"] = "forget",
        retain: int = 0,
        forget: int = 1,
    ) -> None:
        check_non_negative(alpha=alpha, gamma=gamma)
        check_choice("forget", "both", elsewhere=elsewhere)
        check_roles(retain, forget)
        self.alpha, self.gamma, self.elsewhere, self.retain, self.forget = alpha, gamma, elsewhere, retain, forget

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``alpha g_R`` where the signs differ, ``gamma g_F`` elsewhere: (D,) for a Jacobian (2, D)."""
        retain, forget = self.rows_of_roles(len(jacobian))
        nothing = torch.zeros_like(jacobian[0])
        kept = self.alpha * (nothing if retain is None else jacobian[retain])
        lost = self.gamma * (nothing if forget is None else jacobian[forget])
        return torch.where(kept.sign() * lost.sign() < 0, kept, lost + kept if self.elsewhere == "both" else lost)
