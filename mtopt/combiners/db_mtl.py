"""Dual-balancing multi-task learning."""

from __future__ import annotations

from typing import Literal

import torch

from mtopt.combiners._arguments import check_choice, check_interval, check_non_negative
from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._tracked import grown_rows, joined
from mtopt.linalg import gramian_of


@register_combiner("db_mtl")
class DBMTL(JacobianCombiner):
    """DB-MTL: gradients of the log losses, averaged over the steps, all brought to the norm of the longest.

    With ``g_k`` the gradient of ``log l_k`` and ``y_k = 0`` at the start, step t = 1, 2, ... does
    ``y_k <- beta_t y_k + (1 - beta_t) g_k`` with ``beta_t = beta / t^decay``, and
    ``d = max_i ||y_i|| * sum_k y_k / ||y_k||``.

    Lin et al., "Dual-balancing for multi-task learning", 2023 (arXiv 2308.12029), as the authors' code in LibMTL, which
    adds 1e-8 to losses and norms; here a zero vector gets weight zero instead. That code steps along the gradient of
    ``log l_k`` in the heads, too, which ``heads`` chooses. Without a conflict the direction is K
    times as long as the longest averaged log gradient; as y starts from zero, the first one is shorter by
    ``1 - beta_1`` (a tenth of its length, with the defaults).

    Args:
        beta: share of the past in the average, in [0, 1); 0 takes each step's gradients alone.
        decay: exponent of the decay of beta with the step, >= 0.
        transform: ``"log"`` (the paper), which needs positive losses; or None, which takes the gradients as they are
            and reads no losses. The norms are equal either way; the logarithm decides how steps are averaged, and the
            length.
        heads: what a parameter gets that one loss alone reaches, unless ``private=`` of the step says otherwise:
            ``"log"``, the gradient of ``log l_k``, as in LibMTL; or ``"loss"``, that of ``l_k``, as under other rules.
            With ``transform=None`` both are the latter.

    A loss that is absent from a batch keeps its averaged gradient, which still takes part in the step. The state is K
    vectors of D entries in float32 (float64 for a float64 model). They belong to parameters, so the rule does not take
    gradients of a representation, which is another one for every batch.
    """

    shardable = True
    features = False
    stateful = True
    scale_invariant = True
    positive_losses = True
    weighted = True
    search_space = {"beta": ("uniform", 0.0, 0.95), "decay": ("choice", 0.0, 0.5)}  # noqa: RUF012  (a class-level constant)
    state = ("_members", "_tracked", "_step")
    _as_long = ("_members", "_tracked")
    by_coordinate = ("_tracked",)
    _late_state = {"_tracked": 2}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self,
        *,
        beta: float = 0.9,
        decay: float = 0.0,
        transform: Literal["log"] | None = "log",
        heads: Literal["log", "loss"] = "log",
    ) -> None:
        check_interval("[0, 1)", beta=beta)
        check_non_negative(decay=decay)
        check_choice("log", None, transform=transform)
        check_choice("log", "loss", heads=heads)
        self.beta, self.decay, self.transform, self.heads = beta, decay, transform, heads
        self.positive_losses = transform == "log"
        self._members: list[int] = []
        self._tracked: torch.Tensor | None = None
        self._step = 0

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``max_i ||y_i|| sum_k y_k / ||y_k||`` (D,) after averaging in the rows of ``jacobian`` (K, D)."""
        objectives, _ = self.objectives_of_rows(len(jacobian))
        factors = self._factors(losses, objectives)
        members, positions = joined(self._members, objectives)
        tracked = grown_rows(self._tracked, len(members), jacobian, type(self).__name__)
        self._members, self._tracked = members, tracked
        self._step += 1
        past = self.beta / self._step**self.decay
        for position, row, factor in zip(positions, jacobian, factors, strict=True):
            tracked[position].mul_(past).add_(row.to(tracked.dtype), alpha=(1.0 - past) * factor)
        norms = gramian_of(tracked).diagonal().sqrt()
        weights = torch.where(norms > 0, norms.max() / norms, 0.0)
        self.last_weights = weights[positions]
        return (tracked.T @ weights.to(tracked)).to(jacobian.dtype)

    def own_factor(self, loss: float, objective: int) -> float:
        """``1 / l_k`` where heads step along the gradient of the logarithm."""
        if self.heads == "loss":
            return 1.0
        return self._factors(torch.tensor([loss], dtype=torch.float64), (objective,))[0]

    def _factors(self, losses: torch.Tensor | None, objectives: tuple[int, ...]) -> list[float]:
        """What turns each row into the gradient that is averaged."""
        if self.transform is None:
            return [1.0] * len(objectives)
        values = self._losses(losses, len(objectives))
        if not bool((values > 0).all()):
            raise ValueError(
                f"DBMTL takes the logarithm of the losses, and those of objectives {list(objectives)} are "
                f"{values.tolist()}; shift them above zero or set transform=None"
            )
        factors: list[float] = (1.0 / values).tolist()
        return factors
