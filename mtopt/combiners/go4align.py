"""Group optimization for multi-task alignment."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from mtopt.combiners._arguments import check_positive, check_whole
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import loss_values, require_above
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._tracked import joined
from mtopt.linalg import Array, make_tensor_like


@register_combiner("go4align")
class GO4Align(LossCombiner):
    """GO4Align: tasks with like weights form groups, and each task gets the mean weight of its group.

    ``p <- p exp(-step_size l) / sum``, from 1/K; ``v_k = p_k sum_j l_j / l_k``, which would bring all losses to one
    scale; then k-means over the K numbers v, and w_k is the centre of the group of task k. The weights have the sum of
    v. A loss that stays large loses indicator p and, having a small v already, is aligned with others like it.

    Shen et al., "GO4Align: group optimization for multi-task alignment", NeurIPS 2024 (arXiv 2404.06486), as the
    authors' code has it. That starts k-means from random tasks; on a line its best solution cuts the sorted numbers, so
    all cuts are compared here, without a seed. Ties are split at the lowest cut.

    Args:
        groups: number of groups, >= 1; 1 gives every task the mean of v, K and more leave v as it is.
        step_size: of the indicators, > 0, in the unit of an inverse loss. Default: 1e-4, the authors'.

    Equal losses have the weights 1: the step is K times that of ``linear``. Every loss must be positive. A loss that is
    absent from a batch keeps its p; those that are there share theirs anew.
    """

    stateful = True
    positive_losses = True
    search_space = {"groups": ("choice", 1, 2, 3), "step_size": ("log", 1e-5, 1e-1)}  # noqa: RUF012  (a constant)
    state = ("_members", "_logits")
    _as_long = ("_members", "_logits")

    def __init__(self, *, groups: int = 2, step_size: float = 1e-4) -> None:
        check_whole(1, groups=groups)
        check_positive(step_size=step_size)
        self.groups, self.step_size = groups, step_size
        self._members: list[int] = []
        self._logits = torch.zeros(0, dtype=torch.float64)  # log K p: an indicator may become very small and come back

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """The centres of the groups (K,) for losses (K,), after one update of the indicators."""
        values = loss_values(losses)
        objectives, _ = self.objectives_of_rows(len(values))
        require_above(self, values, objectives, why="it divides by them")
        self._members, positions = joined(self._members, objectives)
        self._logits = torch.cat([self._logits, self._logits.new_zeros(len(self._members) - len(self._logits))])
        before = self._logits[positions]
        moved = before - self.step_size * torch.from_numpy(values)
        moved += before.logsumexp(0) - moved.logsumexp(0)  # their sum stays
        self._logits = self._logits.index_copy(0, torch.tensor(positions), moved)
        indicators = moved.exp().numpy() / len(self._members)
        return make_tensor_like(centres(indicators * (values.sum() / values), self.groups), losses)


def centres(numbers: Array, groups: int) -> Array:
    """Each number replaced by the mean of its group, for the groups with the least squared distances to their means.

    The best groups on a line are consecutive, and the last of them begins somewhere: the least costs of all beginnings
    of the sorted numbers in 1, 2, ... groups follow from one another.
    """
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order] / numbers.max()
    count = len(ordered)
    costs = np.array([[_scatter(ordered[i:j]) for j in range(count + 1)] for i in range(count)])
    least, starts = costs[0].copy(), []
    for _ in range(1, min(groups, count)):
        ways = least[:count, None] + costs  # numbers i to j as one more group
        ways[0] = least
        starts.append(ways.argmin(axis=0))
        least = ways.min(axis=0)
    ends = [count]
    for start in reversed(starts):
        ends.append(int(start[ends[-1]]))
    found = np.empty(count)
    for low, high in itertools.pairwise([0, *ends[::-1]]):
        if high > low:
            found[order[low:high]] = ordered[low:high].mean() * numbers.max()
    return found


def _scatter(numbers: Array) -> float:
    return float(np.square(numbers - numbers.mean()).sum()) if len(numbers) else np.inf
