"""Hardness-aware multi-objective unlearning."""

from __future__ import annotations

from typing import Literal

import torch

from mtopt.combiners._arguments import check_choice, check_non_negative
from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._roles import RetainsAndForgets, check_roles
from mtopt.linalg import Gradients, gramian_of


@register_combiner("hamu")
class HAMU(RetainsAndForgets, JacobianCombiner):
    """HAMU: the best step for the retain loss, of bounded length, that improves the forget loss by a given amount.

    ``max_d g_R . d`` subject to ``g_F . d >= c`` and ``||d|| <= r``. The paper has the step ``delta = -d`` and the
    gradient ``G_F = -g_F`` of a loss to be raised: ``min_delta g_R . delta`` subject to ``G_F . delta >= c``. Here
    ``g_F`` belongs to a forget loss to be minimised (``Objective("forget", sense="max")`` flips the sign). In closed
    form, with ``u_R, u_F`` the unit gradients and ``k = c / (r ||g_F||)``:

    - direct, if ``u_R . u_F >= k``: ``d = r u_R``;
    - rectified, if ``k <= 1``: ``d = r (k u_F + sqrt(1 - k²) n)``, ``n`` the unit vector of u_R's part across u_F. The
      constraint then holds with equality and ``||d|| = r``;
    - infeasible: ``d = c g_F / ||g_F||²``, the shortest step that improves the forget loss by c; it is longer than r.

    Chen et al., "How hard can it be? Hardness-aware multi-objective unlearning", ICML 2026 (arXiv 2606.02119).

    **Scale.** The paper's delta is a step of its own. The optimizer steps by ``-lr d``, so under SGD the paper's c and
    r are ``lr`` times these: halving the learning rate halves both the step and the improvement. With
    ``radius=None`` the direct step is ``d = g_R``, plain descent on the retain loss, which is how the authors run it
    (r = lr ||g_R||, c = 0.5 lr, gradients clipped to norm 1). An optimizer that rescales coordinates, such as Adam,
    voids the guarantee. c is in units of a squared gradient unless ``relative=True``. The authors apply the rule to
    each tensor on its own, with c shared out by ``||g_R|| ||g_F||``; here it is applied to all the parameters together,
    as the paper's program is, and ``PerGroup`` with ``relative=True`` is the nearest to the former.

    Args:
        constraint: c, the improvement asked for, >= 0.
        radius: r, the longest step, > 0. Default: the norm of the retain gradient (of the forget gradient for
            ``variant="u"``).
        variant: ``"q"``: as above. ``"u"`` (HAMU-U): the roles swapped, the best step for the forget loss that improves
            the retain loss by c.
        relative: c is in units of ``||g_R|| ||g_F||``; the authors' code has this, too. With ``radius=None`` it is
            the cosine that the step keeps with g_F.
        retain, forget: the positions of the two objectives.

    Gradients that are collinear as far as they are known, for which n is nothing, give the infeasible case's answer,
    and so does a zero retain gradient, to which all steps are alike. For a forget gradient that is zero, or so short
    that its step overflows, c cannot be reached: ``d`` is zero, unless c is zero, too; then the step is direct. A
    forget loss absent from the batch asks for nothing: the step is direct. (Retain and forget swapped in all this for
    ``variant="u"``.) More or fewer than two objectives are refused.
    """

    shardable = True
    homogeneous = False  # constraint has the unit of a squared gradient
    weighted = True
    search_space = {"constraint": ("log", 1e-3, 10.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self,
        *,
        constraint: float = 0.5,
        radius: float | None = None,
        variant: Literal["q", "u"] = "q",
        relative: bool = False,
        retain: int = 0,
        forget: int = 1,
    ) -> None:
        check_non_negative(constraint=constraint)
        if radius is not None and not radius > 0:
            raise ValueError(f"radius must be positive, or None for the gradient's norm, found {radius}")
        check_choice("q", "u", variant=variant)
        check_roles(retain, forget)
        self.constraint, self.radius, self.variant, self.relative = constraint, radius, variant, relative
        self.retain, self.forget = retain, forget
        self.homogeneous = relative and radius is None

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``-delta`` (D,) for a Jacobian (2, D)."""
        best, bound = self.rows_of_roles(len(jacobian))
        if self.variant == "u":
            best, bound = bound, best
        rows = jacobian.to(torch.promote_types(jacobian.dtype, torch.float32))
        norms = gramian_of(rows).diagonal().sqrt().tolist()
        free = 0.0 if best is None else norms[best]  # the norm of the gradient to descend along
        fixed = 0.0 if bound is None else norms[bound]  # that of the gradient in the constraint
        radius = free if self.radius is None else self.radius
        asked = 0.0 if bound is None else self.constraint * (free * fixed if self.relative else 1.0)
        self.last_weights = torch.zeros(len(rows), dtype=torch.float64)
        if best is not None and free > 0:
            self.last_weights[best] = radius / free
        reach = asked / fixed if fixed > 0.0 else 0.0  # how far d must go along the gradient in the constraint
        if fixed == 0 or bound is None or not reach < 0.25 * torch.finfo(jacobian.dtype).max:
            # no direction to meet the constraint along: it holds already, or never will
            self.last_weights *= float(asked == 0)
        elif best is None or free == 0:
            self.last_weights[bound] = reach / fixed
        else:
            return self._between(rows, best, bound, norms, radius, reach).to(jacobian.dtype)
        return Gradients.of(rows).combined(self.last_weights)[0].to(jacobian.dtype)

    def _between(
        self, rows: torch.Tensor, best: int, bound: int, norms: list[float], radius: float, reach: float
    ) -> torch.Tensor:
        """The answer for two gradients that are not zero; ``reach`` is how far ``d`` must go along the second."""
        assert self.last_weights is not None
        wish, need = rows[best] / norms[best], rows[bound] / norms[bound]
        cosine = _product(wish, need)
        if radius * cosine >= reach:
            return wish * radius
        rounding = max(self._precision(rows).rows, torch.finfo(rows.dtype).eps)
        # Twice, and on vectors: near-collinear gradients leave a remainder that the Gramian knows too little of.
        across = wish.add(need, alpha=-cosine)
        rest = _product(across, need)
        across.add_(need, alpha=-rest)
        sine = _product(across, across) ** 0.5
        length = 0.0
        if reach < radius and sine > 8 * rounding:
            length = ((radius - reach) * (radius + reach)) ** 0.5 / sine
        self.last_weights[best] = length / norms[best]
        self.last_weights[bound] = (reach - length * (cosine + rest)) / norms[bound]
        return (need * reach).add_(across, alpha=length)


def _product(first: torch.Tensor, second: torch.Tensor) -> float:
    """The inner product of two vectors, summed in float64."""
    return float(gramian_of(torch.stack([first, second]))[0, 1])
