"""Gradients mixed with those of the last few steps."""

from __future__ import annotations

import torch

from mtopt.combiners._arguments import check_interval, check_whole
from mtopt.combiners._base import Combiner
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._tracked import joined
from mtopt.combiners._wrapper import Wrapper, require_seen
from mtopt.linalg import Gradients


class GradientHistory(Wrapper):
    """FSG-style: the rule's direction for ``slow mean(last gradients) + (1 - slow) g_k`` in place of ``g_k``.

    The mean is that of the last ``length`` gradients of the loss, this one among them: a first step is the rule's own.
    After Chen et al., "Fast and slow gradient approximation for binary neural network optimization", AAAI 2025 (arXiv
    2412.11777), whose history has five gradients, and whose slow and fast part are mixed .9 to .1. There a sequence
    model that is trained beside the network makes the slow gradient of the history; here it is the mean.

    Args:
        rule: a rule on the gradients of one mini-batch.
        length: gradients in the history, >= 1. Default: 5.
        slow: share of their mean, in [0, 1]. Default: 0.9.

    Keeps ``length`` gradients of each loss in float32 (float64 for a float64 model), also of one that is absent.
    """

    state = ("_members", "_past")
    _as_long = ("_members", "_past")
    by_coordinate = ("_past",)
    _late_state = {"_past": "list"}  # noqa: RUF012  (a class-level constant)

    def __init__(self, rule: Combiner, length: int = 5, slow: float = 0.9) -> None:
        super().__init__(rule)
        check_whole(1, length=length)
        check_interval("[0, 1]", slow=slow)
        require_seen(self, rule)
        self.length, self.slow = length, slow
        self._declare(needs="jacobian", features=False, on_features=False, weighted=False, stateful=True)
        self._declare(non_conflicting=False, scale_invariant=False)
        self._members: list[int] = []  # the objective of each history, in order of appearance
        self._past: list[torch.Tensor] = []  # the last gradients, (up to length, D) each

    def _combine(self, gradients: Gradients, losses: torch.Tensor | None) -> Outcome:
        rows = gradients.jacobian()
        self._members, positions = joined(self._members, gradients.objectives)
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        self._past += [wide[:0] for _ in range(len(self._members) - len(self._past))]
        for position, row in zip(positions, wide, strict=True):
            self._past[position] = torch.cat([self._past[position].to(row), row[None]])[-self.length :]
        means = torch.stack([self._past[position].mean(0) for position in positions])
        mixture = self.slow * means + (1.0 - self.slow) * wide
        mixed = Gradients.of(mixture, objectives=gradients.objectives, total=gradients.total)
        outcome = self.rule.combine(mixed, losses)
        self.certificate = self.rule.certificate
        if outcome.direction is not None:
            return Outcome(None, outcome.direction.to(rows.dtype))
        assert outcome.weights is not None
        return Outcome(None, mixed.combined(outcome.weights)[0].to(rows.dtype))
