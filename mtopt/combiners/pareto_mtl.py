"""Pareto multi-task learning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mtopt.combiners._arguments import check_non_negative, check_whole
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._losses import loss_values, require_above
from mtopt.combiners._preference import Preference, check_preference, preference_of
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like, read_coordinates, read_gramian
from mtopt.solvers import Certificate, min_norm


@register_combiner("pareto_mtl")
class ParetoMTL(GramianCombiner):
    """Pareto MTL: MGDA in the sector of the losses that is nearer to one preference than to the others.

    With the unit vectors u of the preference and ``u_j`` of the others, the losses are in the sector when
    ``G_j = (u_j - u) . l / ||l|| <= 0`` for all j. The ``G_j > -epsilon`` are active.

    - Phase 1, to enter the sector: the shortest convex combination of the gradients ``(u_j - u) J`` of the active
      constraints. It ends at the first step without one, and after ``warmup`` steps.
    - Phase 2: the shortest convex combination of the gradients of the losses and of the active constraints,
      ``sum_k lambda_k g_k + sum_j beta_j (u_j - u) J``. The weights are ``lambda + sum_j beta_j (u_j - u)``; that of a
      loss which is too small for the sector may be negative.

    Lin et al., "Pareto multi-task learning", NeurIPS 2019. One rule solves one of the sub-problems; each of N
    preferences, with the same set ``others``, gives one. The result is somewhere in the sector, not on a ray. The
    authors' code is for two tasks, and so is libmoon's; this is their rule for any K.

    Args:
        preference: (K,) the middle p of the sector, non-negative, summing to one: a large p_k allows a large loss.
            Default: 1/K each.
        others: (N, K) the preferences of the other sub-problems, likewise; p itself may be among them. Default: the K
            that put all on one objective.
        warmup: the longest phase 1 in steps, >= 0. Default 20, the authors' in their example of 100 steps; in their
            multi-task training two epochs.
        epsilon: how near to its boundary a constraint is active, >= 0, as a part of ``||l||``. Default 0, the authors'
            code's.

    No loss may be negative. In phase 2 the norm of d never exceeds the shortest gradient's; in the sector, K equal
    gradients give that gradient. A zero gradient stops phase 2, and so does an active constraint whose gradient is zero
    (equal gradients cannot be moved from one sector to another). In phase 1 the losses may rise. A loss that is absent
    from a batch takes no part: sectors are then those of the other losses.
    """

    stateful = True
    positive_losses = True
    state = ("_step", "_entered")

    def __init__(
        self,
        *,
        preference: Preference = None,
        others: Sequence[Sequence[float]] | torch.Tensor | None = None,
        warmup: int = 20,
        epsilon: float = 0.0,
    ) -> None:
        check_preference(preference)
        _check_others(others)
        check_whole(0, warmup=warmup)
        check_non_negative(epsilon=epsilon)
        self.preference, self.others, self.warmup, self.epsilon = preference, others, warmup, epsilon
        self._step = 0
        self._entered = False

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The weights (K,) for a Gramian (K, K) and losses (K,) in the phase that the rule is in."""
        matrix = read_gramian(gramian)
        values = loss_values(self._losses(losses, len(matrix)))
        objectives, total = self.objectives_of_rows(len(matrix))
        require_above(self, values, objectives, why="its sectors divide the positive orthant", inclusive=True)
        differences = self._differences(objectives, total)
        length = np.linalg.norm(values)
        violations = differences @ values / length if length > 0.0 else np.zeros(len(differences))
        active = differences[(violations > -self.epsilon) & differences.any(axis=1)]
        entering = not self._entered and self._step < self.warmup and len(active) > 0
        parts = active if entering else np.vstack([np.eye(len(values)), active])
        rows = parts @ read_coordinates(matrix)
        shares, certificate = min_norm(rows @ rows.T, self._precision(gramian))
        self.certificate = Certificate(
            certificate.residual, certificate.gap, f"phase {1 if entering else 2}, {certificate.method}"
        )
        self._step, self._entered = self._step + 1, not entering
        return make_tensor_like(shares @ parts, gramian)

    def _differences(self, objectives: Sequence[int], total: int) -> Array:
        """``u_j - u`` for the other preferences j, zero where they are the own one, or nothing: (N, K)."""
        own = preference_of(self.preference, objectives, total).numpy()
        if self.others is None:
            others = np.eye(total)[:, list(objectives)]
        else:
            others = torch.stack(
                [preference_of(row, objectives, total) for row in torch.as_tensor(self.others)]
            ).numpy()
        lengths, length = np.linalg.norm(others, axis=1, keepdims=True), np.linalg.norm(own)
        if length == 0.0:
            return np.zeros_like(others)
        differences = others / np.where(lengths > 0.0, lengths, 1.0) - own / length
        # preferences in float32 that are the same differ by 1e-7
        return np.where((lengths > 0.0) & (np.abs(differences).max(axis=1, keepdims=True) > 1e-6), differences, 0.0)


def _check_others(others: Sequence[Sequence[float]] | torch.Tensor | None) -> None:
    """Raise ValueError unless ``others`` is None or rows of preferences."""
    if others is None:
        return
    rows = torch.as_tensor(others, dtype=torch.float64)
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"others must have shape (N, K), one preference per row, found {tuple(rows.shape)}")
    wrong = (rows < 0).any(1) | ((rows.sum(1) - 1.0).abs() > 1e-6)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise ValueError(
            f"others must have rows that are non-negative and sum to one, found {rows[first].tolist()} in row {first}; "
            "divide it by its sum"
        )
