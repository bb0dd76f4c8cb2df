"""Gradients of strata, each with a corrected memory."""

from __future__ import annotations

import torch

from mtopt.combiners._arguments import check_interval
from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._preference import Preference, check_preference, preference_of
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._tracked import grown_rows, joined
from mtopt.linalg import Gradients


@register_combiner("mstgd_style")
class MSTGDStyle(JacobianCombiner):
    """MSTGD-style: the mean over strata of gradients that remember, each memory corrected by how its stratum moved.

    With g_c the gradient of stratum c (a class, say) here and g_c' that of the same batch at the parameters of the step
    before, ``m_c <- g_c + memory (m_c - g_c')`` and ``d = sum_c p_c m_c``. The part of the past is moved by
    ``g_c - g_c'`` before it is mixed in, so that it does not lag, and noise averages over about 1 / (1 - memory) steps.

    After Chen et al., "MSTGD: a memory stochastic stratified gradient descent method with an exponential convergence
    rate", 2022 (arXiv 2202.10923): history of which a proportion is kept, and sampling stratified by class. How the
    paper sets the proportion could not be found: here it is a constant. The estimator is then STORM's (Cutkosky and
    Orabona, NeurIPS 2019), stratum by stratum. Draw batches with :class:`mtopt.training.StratifiedBatches`.

    Args:
        memory: share of the past, in [0, 1); 0 is ``linear``.
        preference: (K,) sizes p of the strata, summing to one. Default: 1/K each.

    The rule ``revisits``: 2K backward passes, and the losses given as a callable. A stratum that is absent from a batch
    counts with its memory as it is, and starts anew when it comes back. The state is K vectors of D entries in float32
    (float64 for a float64 model), and the parameters of the last step.
    """

    shardable = True
    features = False  # the representations of two points have nothing in common
    revisits = True
    stateful = True
    weighted = True
    search_space = {"memory": ("uniform", 0.0, 0.99)}  # noqa: RUF012  (a class-level constant)
    state = ("_members", "_current", "_memory", "visited")
    _as_long = ("_members", "_memory")
    by_coordinate = ("_memory",)
    _late_state = {"_memory": 2, "visited": "list"}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, memory: float = 0.9, preference: Preference = None) -> None:
        check_interval("[0, 1)", memory=memory)
        check_preference(preference)
        self.memory, self.preference = memory, preference
        self._members: list[int] = []  # the objective of each row, in order of appearance
        self._current: list[int] = []  # those whose rows are of the last step
        self._memory: torch.Tensor | None = None

    def combine_revisited(self, gradients: Gradients, before: Gradients | None, losses: torch.Tensor | None) -> Outcome:
        """The outcome for the gradients of one batch, here and at the parameters of the step before."""
        here = gradients.jacobian()
        # autocast off: the rule's products are not the model's
        with self.tell(self._context_for(gradients)), torch.autocast(here.device.type, enabled=False):
            direction = self._remembered(here, here if before is None else before.jacobian())
        assert self.last_weights is not None
        return Outcome(self._weights(self.last_weights, len(here)), direction)

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``sum_c p_c m_c`` (D,) after one update with rows (K, D) that are the same at both points."""
        return self._remembered(jacobian, jacobian)

    def _remembered(self, here: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        objectives, total = self.objectives_of_rows(len(here))
        self._members, positions = joined(self._members, objectives)
        rows = grown_rows(self._memory, len(self._members), here, type(self).__name__)
        self._memory = rows
        for position, objective, row, old in zip(positions, objectives, here, before, strict=True):
            if objective in self._current:
                rows[position].sub_(old).mul_(self.memory).add_(row)
            else:
                rows[position].copy_(row)
        self._current = list(objectives)
        shares = preference_of(self.preference, self._members, total)
        self.last_weights = shares[positions]
        return (rows.T @ shares.to(rows)).to(here.dtype)
