"""The step of a rule that weighs by gradients of the shared representation: one backward of the trunk, whatever K."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from mtopt._losses import Batch
from mtopt.autograd._call import Call
from mtopt.autograd._reach import (
    Group,
    Grouping,
    Reach,
    boundary_of,
    losses_on_graph,
    reach_of_rows,
    reach_on_all,
    require_reach,
    trunk_of,
)
from mtopt.autograd._retained import set_aside
from mtopt.autograd._rows import row_of
from mtopt.autograd._step import Evidence, Piece, Update, find_non_finite
from mtopt.autograd.plans._kept_rows import KeptRows
from mtopt.combiners import Outcome
from mtopt.linalg import Gradients, Row, join_complex, view_reals


class Representation(KeptRows):
    """Weights from the gradients with respect to ``features``, applied in one backward of what is behind them.

    Parameters that only the heads have get what ``private`` says, or the rule applied to their rows where several
    losses reach them.
    """

    description = "features only: the rule weighs by the gradients of the representation, then one trunk backward"

    def __init__(self, call: Call, batch: Batch) -> None:
        super().__init__(call, batch)
        if call.features is None or not batch.all_tensors:
            raise ValueError(
                "plan='features' weighs by the gradients of a representation: give features, the trunk's output, and "
                "losses that were computed from it, as tensors"
            )
        self.losses = losses_on_graph(batch, call)
        self.boundary = boundary_of(call.features)
        self.trunk, self.obstacle = trunk_of(self.boundary, self.losses, call)
        self.carried: Sequence[Group] = ()  # heads that get the trunk's weights

    def group(self) -> Grouping:
        """The trunk first, whose weights are the step's; the heads by the losses that reach them."""
        assert self.trunk is not None
        params, width = self.call.params, len(self.boundary)
        outside = [index for index, param in enumerate(params) if id(param) not in self.trunk]
        heads = [params[index] for index in outside]
        named = list(zip(self.batch.names, self.losses, strict=True))
        ends = [row_of(name, loss, [*self.boundary, *heads], retain_graph=True) for name, loss in named]
        seen = [tuple([k for k, row in enumerate(ends) if any(g is not None for g in row[:width])])]
        (reach,) = reach_on_all(seen, len(ends), self.call.processes)
        of_heads = iter([(name, row[width:]) for (name, _), row in zip(named, ends, strict=True)])
        self.rows = rows = []
        for k, (name, row) in enumerate(self.call.processes.sum_rows(of_heads, heads)):
            if k not in reach:
                require_reach(name, row)
            spread: Row = [None] * len(params)
            for index, gradient in zip(outside, row, strict=True):
                spread[index] = gradient
            rows.append(spread)
        self.representation = self._representation([ends[k][:width] for k in reach], reach)
        main = Group(reach, True, [index for index, param in enumerate(params) if id(param) in self.trunk])
        found = Grouping.of(self.reach(), self.call.places, len(ends), combined=self.private == "combined", trunk=set())
        self.backwards = 0
        if self.private == "own":
            return Grouping([main, *found.shared], found.own)
        self.carried = [*found.shared, *found.own]
        return Grouping([main])

    def reach(self) -> Sequence[Reach]:
        return reach_of_rows(self.rows)

    def _representation(self, rows: Sequence[Row], reach: Reach) -> Gradients:
        zeros = [view_reals(feature) for feature in self.boundary]
        found = Gradients(
            [[torch.zeros_like(zero) if g is None else g for g, zero in zip(row, zeros, strict=True)] for row in rows],
            objectives=[self.batch.present[k] for k in reach],
            total=len(self.batch.objectives),
            scale=self.call.scale,
        )
        if self.call.processes.several:  # each has other samples, whose gradients stand beside one another
            found.gramian = self.call.processes.sum_products(found.gramian)
        return found

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        self.heads = [self.gradients_of(group, self.rows) for group in (*grouping.shared[1:], *grouping.own)]
        self.carried_rows = [self.gradients_of(group, self.rows) for group in self.carried]
        single = list(zip(grouping.own, self.heads[len(grouping.shared) - 1 :], strict=True))
        looked = [(k, g) for group, found in single for k in group.reach for g in found.rows[0]]
        for group, found in zip(self.carried, self.carried_rows, strict=True):
            looked += [(k, g) for k, row in zip(group.reach, found.rows, strict=True) for g in row]
        yield Evidence([self.representation, *self.heads[: len(grouping.shared) - 1]], own=find_non_finite(looked))

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        pieces: list[Piece] = []
        own = self.own_factors(grouping, weights)
        given = [outcome.weights for outcome in outcomes[1:]] + [[own[group.loss]] for group in grouping.own]
        for group, found, by in zip((*grouping.shared[1:], *grouping.own), self.heads, given, strict=True):
            pieces.append((group.indices, found.combined(by)))  # type: ignore[arg-type]
        for group, found in zip(self.carried, self.carried_rows, strict=True):
            pieces.append((group.indices, found.combined([weights.get(k, 1.0) for k in group.reach])))
        behind = grouping.shared[0].indices
        self.backwards = 1
        if behind:  # all frozen, the heads are left to train
            assert outcomes[0].weights is not None
            pieces.append((behind, self._differentiate_trunk(outcomes[0].weights, behind)))
        return Update(pieces)

    def _differentiate_trunk(self, weights: torch.Tensor, indices: Sequence[int]) -> list[torch.Tensor | None]:
        made, params = self.representation.combined(weights), [self.call.params[index] for index in indices]
        seeds = [join_complex(gradient, feature) for gradient, feature in zip(made, self.boundary, strict=True)]
        keep = self.batch.retain_graph
        with set_aside(self.boundary):  # where they retain their gradient they have had it from the heads
            through = torch.autograd.grad(self.boundary, params, seeds, retain_graph=keep, allow_unused=True)
        summed = self.call.processes.sum_gradients("the trunk", through, params)
        return [gradient if gradient is None else gradient.clone() for gradient in summed]
