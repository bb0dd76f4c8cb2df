"""The step of a rule on inner products when K gradients do not fit in memory: none is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mtopt._losses import Batch
from mtopt.autograd._call import Call
from mtopt.autograd._reach import Grouping
from mtopt.autograd._rows import row_of
from mtopt.autograd._step import Evidence, find_non_finite
from mtopt.autograd.plans._weighted import OnGraph
from mtopt.linalg import Gradients, InnerProducts, view_reals

ALIVE = 2
"""How many whole gradients the K of a block of parameters may take."""


def alive_in_rounds(params: Sequence[torch.Tensor], count: int) -> int:
    """Numbers of gradients alive at once in rounds: a block's, or those of a parameter that is larger than a block."""
    sizes = [param.numel() for param in params]
    return max(ALIVE * sum(sizes), count * max(sizes))


class Blockwise(OnGraph):
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
        self.description = f"inner products block by block, then one weighted backward: {why}"
        if not batch.all_tensors:
            raise ValueError(
                "store='recompute' differentiates each loss several times, and a callable's graph is freed after the "
                "first; give the losses as tensors, or leave it out"
            )

    def evidence(self, grouping: Grouping) -> Iterator[Evidence]:
        groups = [*grouping.shared, *grouping.own]
        totals = [torch.zeros(len(group.reach), len(group.reach), dtype=torch.float64) for group in groups]
        number_of = {index: number for number, group in enumerate(groups) for index in group.indices}
        for block in self.blocks_of(sorted(number_of)):
            reaches = {index: groups[number_of[index]].reach for index in block}
            rows = [self._row(k, [index for index in block if k in reaches[index]]) for k in range(len(self.losses))]
            for number in {number_of[index] for index in block}:
                indices = [index for index in block if number_of[index] == number]
                parts = [[rows[k][index] for index in indices] for k in groups[number].reach]
                totals[number] += Gradients(parts, scale=self.call.scale).gramian
                del parts
            del rows
        shared = []
        for group, total in zip(grouping.shared, totals, strict=False):
            dtype = view_reals(self.call.params[group.indices[0]]).dtype
            objectives = self.objectives(group)
            shared.append(InnerProducts(total, dtype, objectives=objectives, total=len(self.batch.objectives)))
        own = [(group.loss, total) for group, total in zip(grouping.own, totals[len(shared) :], strict=True)]
        yield Evidence(shared, own=find_non_finite(own) if own else set())

    def _row(self, k: int, indices: Sequence[int]) -> dict[int, torch.Tensor]:
        """The gradient of a loss by some parameters, which it reaches by the graph; zeros where it is stopped there."""
        if not indices:
            return {}
        name, params = self.batch.names[k], [self.call.params[index] for index in indices]
        row = row_of(name, self.losses[k], params, retain_graph=True, processes=self.call.processes)
        self.backwards += 1
        summed = self.call.processes.sum_gradients(f"loss {name!r}", row, params)
        return {
            index: torch.zeros_like(view_reals(param)) if gradient is None else gradient
            for index, param, gradient in zip(indices, params, summed, strict=True)
        }

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
