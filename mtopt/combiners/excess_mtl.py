"""Task weights from excess risks."""

from __future__ import annotations

import torch

from mtopt.combiners._arguments import check_positive
from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._tracked import grown_rows, joined
from mtopt.linalg import Gradients, sum_parts


@register_combiner("excess_mtl")
class ExcessMTL(JacobianCombiner):
    """ExcessMTL: more weight for the objectives that are further from convergence.

    The excess risk is estimated by ``e_k = g_k' diag(h_k)^(-1/2) g_k`` with ``h_k`` the sum of the squared gradients of
    objective k so far, and divided by its first value ``e_k(1)``. Then ``w_k <- w_k exp(step_size e_k / e_k(1))``,
    rescaled to ``sum_k w_k = K``, and ``d = sum_k w_k g_k``.

    He et al., "Robust multi-task learning with excess risks", ICML 2024, as the authors' code: weights start at one and
    sum to K, so that with equal ones the step is K times that of ``linear``. The first step leaves the weights as they
    are, since every ``e_k / e_k(1)`` is one. The code adds 1e-7 below the root, which is felt by short gradients; here
    an entry that has always been zero contributes zero. An objective whose gradient has been zero so far counts as
    converged (``e_k = 0``).

    A factor on a loss cancels in its weight and stays in its gradient: rescale the losses, not the weights.

    Args:
        step_size: of the weights, > 0.

    A loss that is absent from a batch keeps its weight; those that are there share theirs anew among themselves. The
    state is K vectors of D entries in float32 (float64 for a float64 model), which belong to parameters: the rule does
    not take gradients of a representation.
    """

    shardable = True
    features = False
    stateful = True
    weighted = True
    search_space = {"step_size": ("log", 1e-3, 1.0)}  # noqa: RUF012  (a class-level constant)
    state = ("_members", "_roots", "_initial", "_logits")
    _as_long = ("_members", "_roots", "_initial", "_logits")
    by_coordinate = ("_roots",)
    _late_state = {"_roots": 2}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, step_size: float = 1e-2) -> None:
        check_positive(step_size=step_size)
        self.step_size = step_size
        self._members: list[int] = []
        self._roots: torch.Tensor | None = None  # sqrt(h): squares of short gradients would underflow
        self._initial = torch.zeros(0, dtype=torch.float64)  # e_k(1); 0 until the first gradient that is not zero
        self._logits = torch.zeros(0, dtype=torch.float64)  # log w: a weight may become very small and come back

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``sum_k w_k g_k`` (D,) after one update of the weights with the rows of ``jacobian`` (K, D)."""
        objectives, _ = self.objectives_of_rows(len(jacobian))
        members, positions = joined(self._members, objectives)
        roots = grown_rows(self._roots, len(members), jacobian, type(self).__name__)
        new = len(members) - len(self._members)
        self._members, self._roots = members, roots
        self._initial = torch.cat([self._initial, self._initial.new_zeros(new)])
        logits = torch.cat([self._logits, self._logits.new_zeros(new)])

        excess = torch.zeros(len(positions), dtype=torch.float64)
        for index, (position, row) in enumerate(zip(positions, jacobian, strict=True)):
            entry, root = row.to(roots.dtype), roots[position]
            torch.hypot(root, entry, out=root)
            share = torch.where(root > 0, entry / root, 0.0)
            excess[index] = (entry * share).sum(dtype=torch.float64)
        excess = sum_parts(excess)
        initial = self._initial[positions]
        initial = torch.where(initial > 0, initial, excess)
        self._initial = self._initial.index_copy(0, torch.tensor(positions), initial)

        before = logits[positions]
        moved = before + self.step_size * torch.where(initial > 0, excess / initial, 0.0)
        moved += before.logsumexp(0) - moved.logsumexp(0)  # their sum stays: K when all are there
        self._logits = logits.index_copy(0, torch.tensor(positions), moved)
        self.last_weights = moved.exp()
        return Gradients.of(jacobian).combined(self.last_weights)[0]
