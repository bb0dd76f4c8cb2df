"""The step of a rule on inner products when K gradients do not fit in memory: none is kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from mtopt._losses import Batch
from mtopt.autograd._call import Call
from mtopt.autograd._reach import Grouping, Reach, losses_on_graph
from mtopt.autograd._rows import row_of
from mtopt.autograd._step import Evidence, Plan, Update, find_non_finite
from mtopt.autograd.plans._weighted import WHAT, differentiate_weighted, reach_on_graph, trunk_of_call
from mtopt.combiners import Outcome
from mtopt.linalg import Gradients, InnerProducts, view_reals

ALIVE = 2
"""How many whole gradients the blocks of parameters may take together."""


class Blockwise(Plan):
    """The Gramian from the gradients of some parameters at a time, then one backward pass of the weighted losses.

    The parameters are cut into B = ceil(K / 2) blocks of neighbours, so that K gradients of a block are two whole ones;
    a parameter larger than a block is one by itself: K times the largest parameter is the least. Each block is a round
    of K backward passes that go no further down than the block: with weights and activations at equal cost that is
    ``K (1 + (B - 1) / 4)`` passes, and one more: 6 at K = 4, 15 at K = 8. At K = 2 it gains nothing. ``features``
    say which parameters are shared; the heads are passed in every round.
    """

    late = True

    def __init__(self, call: Call, batch: Batch, why: str) -> None:
        super().__init__(call, batch)
        self.told = f"inner products block by block, then one weighted backward: {why}"
        if not batch.all_tensors:
            raise ValueError(
                "store='recompute' differentiates each loss several times, and a callable's graph is freed after the "
                "first; give the losses as tensors, or leave it out"
            )

    def reach(self) -> Sequence[Reach]:
        self.losses = losses_on_graph(self.batch)
        self.trunk = trunk_of_call(self.call)
        return reach_on_graph(self.losses, self.call, self.batch)

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        groups = [*grouping.shared, *grouping.own]
        totals = [torch.zeros(len(group.reach), len(group.reach), dtype=torch.float64) for group in groups]
        number_of = {index: number for number, group in enumerate(groups) for index in group.indices}
        params = self.call.params
        for block in self.blocks_of(sorted(number_of)):
            rows: list[dict[int, torch.Tensor]] = []
            for k, loss in enumerate(self.losses):
                reached = [index for index in block if k in groups[number_of[index]].reach]
                row = (
                    row_of(self.batch.names[k], loss, [params[i] for i in reached], retain_graph=True)
                    if reached
                    else []
                )
                if reached:
                    what, across = f"loss {self.batch.names[k]!r}", self.call.processes
                    row = list(across.sum_gradients(what, row, [params[i] for i in reached]))
                self.backwards += bool(reached)
                rows.append({index: g for index, g in zip(reached, row, strict=True) if g is not None})
            for number in {number_of[index] for index in block}:
                indices = [index for index in block if number_of[index] == number]
                parts = [
                    [
                        g if (g := rows[k].get(i)) is not None else torch.zeros_like(view_reals(params[i]))
                        for i in indices
                    ]
                    for k in groups[number].reach
                ]
                totals[number] += Gradients(parts, scale=self.call.scale).gramian
                del parts
            del rows, row
        count = len(grouping.shared)
        self.products = [self._known(total, groups[n].indices[0], groups[n].reach) for n, total in enumerate(totals)]
        own = [(group.loss, total) for group, total in zip(grouping.own, totals[count:], strict=True)]
        yield Evidence(self.products[:count], own=find_non_finite(own) if own else set())

    def _known(self, gramian: torch.Tensor, index: int, reach: Reach) -> InnerProducts:
        batch = self.batch
        objectives = [batch.present[k] for k in reach]
        dtype = view_reals(self.call.params[index]).dtype
        return InnerProducts(gramian, dtype, objectives=objectives, total=len(batch.objectives))

    def realise(self, grouping: Grouping, outcomes: Sequence[Outcome], weights: Mapping[int, float]) -> Update:
        given = [outcome.weights for outcome in outcomes if outcome.weights is not None]
        own = self.own_factors(grouping, weights)
        made = differentiate_weighted(self.losses, grouping, given, own, self.call, self.batch)
        self.backwards += made.backwards
        return Update(made.pieces(grouping), what=WHAT, borrowed=True)

    def blocks_of(self, indices: Sequence[int]) -> list[list[int]]:
        """``indices`` of parameters cut into runs whose K gradients are as large as two whole ones."""
        sizes = {index: self.call.params[index].numel() for index in indices}
        limit = ALIVE * sum(sizes.values()) / len(self.batch.present)
        blocks: list[list[int]] = []
        room = 0.0
        for index in indices:
            if not blocks or sizes[index] > room:
                blocks.append([])
                room = limit
            blocks[-1].append(index)
            room -= sizes[index]
        return blocks
