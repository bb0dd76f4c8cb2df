"""The step of a rule that weighs each gradient by its own norm: rows are added up as they come."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mtopt.autograd._combine import (
    groups_of,
    non_finite,
    own_weight,
    rule_of,
    shared_groups,
    skipped,
)
from mtopt.autograd._complex import like_reals
from mtopt.autograd._finite import WHAT, refusal
from mtopt.autograd._graph import reach_behind
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Features, Request, source_of
from mtopt.autograd._rows import Row
from mtopt.autograd._step import Group, Private, Reach, Step
from mtopt.autograd._write import write_pieces
from mtopt.combiners import Combiner, NormCombiner
from mtopt.linalg import Gradients

LEAST = 3
"""Losses from which on rows are streamed: two gradients are as many as the sum and the next one."""

KEPT_BYTES = 1 << 24
"""Bytes of K gradients up to which they are kept: adding them up as they come takes longer than it saves memory."""

_LOW_PRECISION = (torch.float16, torch.bfloat16)


def is_streamed(request: Request, combiner: Combiner, store: object) -> bool:
    """Whether the rows of this step are to be added up as they come."""
    separable = isinstance(combiner, NormCombiner) and combiner.separable
    count = len(request.present)
    if not separable or not request.all_tensors or count < LEAST or store not in (None, "recompute"):
        return False
    return store == "recompute" or count * sum([p.numel() * p.element_size() for p in request.params]) > KEPT_BYTES


def stream(request: Request, combiner: Combiner, features: Features, private: Private, strict: bool) -> StepRecord:
    """K backwards with two gradients alive, the sum and the next, whatever K.

    Which losses reach a parameter must be known before the first row is weighed. The graph says so; callables have none
    yet, and are not run a second time where they turn out to reach others than was thought: their rows are kept.
    """
    source = source_of(request, features)
    found = reach_behind([request.given[k] for k in request.present])  # type: ignore[misc]
    reaches = [found.get(id(param), ()) for param in request.params]
    total = _Total(request, combiner, private, source.trunk, reaches)
    for position, row in enumerate(source.rows):
        total.add(position, row)
        del row
    return total.finish(strict, f"{source.plan}, added up as they come: the rule weighs each by its own norm")


class _Total:
    """The weighted sum of the rows so far."""

    def __init__(
        self,
        request: Request,
        combiner: Combiner,
        private: Private,
        trunk: set[int] | None,
        reaches: Sequence[Reach],
    ) -> None:
        self.request, self.combiner = request, combiner
        self.step = Step.outline(request, private=private, trunk=trunk)
        self.groups = groups_of(reaches, self.step)
        self.shared = shared_groups(self.groups, self.step)
        self.order = [*self.shared, *(group for group in self.groups if not group.shared)]
        self.sums: dict[int, list[torch.Tensor]] = {}  # by the group
        self.bounds: dict[int, float] = {}  # what no entry of a sum is larger than
        self.weights: dict[int, float] = {}  # of the main group
        self.norms: dict[int, float] = {}
        self.bad: list[int] = []
        self.count = 0

    def add(self, position: int, row: Row) -> None:
        """Weigh the next row by its own norm, and add it. ``row`` is emptied."""
        self.count += 1
        taken = [(group, self._part(group, position, row)) for group in self.order if position in group.reach]
        row.clear()  # so that nothing but the sum holds the first
        finite = all(bool(part.gramian.isfinite().all()) for _, part in taken)
        value = self.request.value(position)
        if not finite:
            self.bad.append(position)
        if self.bad or not math.isfinite(value):
            return  # the step will be skipped
        for group, part in taken:
            if group.shared:
                rule = rule_of(group, self.shared, self.combiner, self.step)
                given = rule.combine(part, torch.tensor([value], dtype=torch.float64)).weights
                assert given is not None
                weight = float(given)
            else:
                weight = own_weight(group, self.weights, self.combiner, self.step)
            if self.shared and group is self.shared[0]:
                self.weights[position] = weight
                self.norms[position] = float(part.gramian.sqrt())
            self._accumulate(group, part, weight)

    def _part(self, group: Group, position: int, row: Row) -> Gradients:
        places = [self.step.places[index] for index in group.indices]
        found = [row[index] for index in group.indices]
        return Gradients(
            [
                [
                    torch.zeros_like(like_reals(p.parameter)) if g is None else g
                    for g, p in zip(found, places, strict=True)
                ]
            ],
            objectives=[self.step.present[position]],
            total=len(self.step.objectives),
            scale=self.step.scale,
            places=places,
        )

    def _accumulate(self, group: Group, part: Gradients, weight: float) -> None:
        self.bounds[id(group)] = self.bounds.get(id(group), 0.0) + part.bound([weight])
        known = self.sums.get(id(group))
        low = any(g.dtype in _LOW_PRECISION for g in part.rows[0])
        if known is None and not low:
            self.sums[id(group)] = part.combined(torch.tensor([weight], dtype=torch.float64), spend=True)
            return
        if known is None:
            known = [torch.zeros_like(g, dtype=torch.promote_types(g.dtype, torch.float32)) for g in part.rows[0]]
            self.sums[id(group)] = known
        part.add_to(known, weight)

    def finish(self, strict: bool, plan: str) -> StepRecord:
        """Write the sum to ``.grad``, unless one of the rows or losses was not finite."""
        step = Step.of(self.request, private=self.step.private, trunk=self.step.trunk, strict=strict, plan=plan)
        reason = non_finite([], [], step)
        if reason is None and self.bad:
            reason = f"non-finite gradient: {', '.join(step.names[k] for k in self.bad)}"
        if reason is not None:
            return skipped(reason, self.groups, step, backwards=self.count)
        pieces = [(group.indices, self.sums[id(group)]) for group in self.order]
        reason = refusal(pieces, step, [self.bounds[id(group)] for group in self.order], what=WHAT)
        if reason is not None:
            return skipped(reason, self.groups, step, backwards=self.count)
        write_pieces(pieces, step)
        names = step.names
        return StepRecord(
            losses=step.losses,
            weights={names[k]: weight for k, weight in self.weights.items()} or None,
            norms={names[k]: norm for k, norm in self.norms.items()} or None,
            plan=plan,
            backwards=self.count,
        )
