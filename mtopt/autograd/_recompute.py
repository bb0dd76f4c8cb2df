"""The step of a rule on inner products when K gradients do not fit in memory: none is kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtopt.autograd._combine import groups_of, non_finite, record_of, rule_of, shared_groups, skipped
from mtopt.autograd._complex import like_reals
from mtopt.autograd._graph import leaves_behind
from mtopt.autograd._passes import OnGraph
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Features, Request, boundary_of
from mtopt.autograd._rows import row_of
from mtopt.autograd._step import Group, Private, Step
from mtopt.combiners import Combiner
from mtopt.linalg import Gradients

ALIVE = 2
"""How many whole gradients the blocks of parameters may take together."""


def recompute(
    request: Request, combiner: Combiner, features: Features, private: Private, strict: bool, why: str
) -> StepRecord:
    """The Gramian from the gradients of some parameters at a time, then one backward of the weighted losses.

    The parameters are cut into B = ceil(K / 2) blocks of neighbours, so that K gradients of a block are two whole ones;
    a parameter larger than a block is one by itself: K times the largest parameter is the least. Each block is a round
    of K backwards that go no further down than the block: with weights and activations at equal cost that is
    ``K (1 + (B - 1) / 4)`` backwards, and one more: 6 at K = 4, 15 at K = 8. At K = 2 it gains nothing. ``features``
    say which parameters are shared; the heads are passed in every round.
    """
    if not request.all_tensors:
        raise ValueError(
            "store='recompute' differentiates each loss several times, and a callable's graph is freed after the "
            "first; give the losses as tensors, or leave it out"
        )
    losses = request.losses()
    source = OnGraph(losses)
    trunk = None if features is None else leaves_behind(boundary_of(features))
    plan = f"inner products block by block, then one weighted backward{why}"
    step = Step.of(request, private=private, trunk=trunk, strict=strict, plan=plan)
    groups = groups_of(source.reaches(step), step)
    reason = non_finite([], [], step)
    if reason is not None:
        return skipped(reason, groups, step, backwards=0)
    gradients, backwards = _inner_products(losses, groups, step)
    reason = non_finite(groups, gradients, step)
    if reason is not None:
        return skipped(reason, groups, step, backwards=backwards)

    shared = shared_groups(groups, step)
    by_group = {id(group): found for group, found in zip(groups, gradients, strict=True)}
    before = combiner.state_dict()  # the weighted gradient is known only after the rule has moved on
    weights = []
    for group in shared:
        rule = rule_of(group, shared, combiner, step)
        outcome = rule.combine(by_group[id(group)], step.minimised[list(group.reach)])
        assert outcome.weights is not None
        weights.append(outcome.weights)
    result = source.weighted(groups, shared, weights, combiner, step, retain_graph=request.retain_graph)
    backwards += result.backwards
    reason = result.refusal(step)
    if reason is not None:
        combiner.load_state_dict(before)
        return skipped(reason, groups, step, backwards=backwards)
    result.write(step)
    main = (shared[0], by_group[id(shared[0])]) if shared else None
    return record_of(main, result.weights, combiner, step, backwards=backwards)


def _inner_products(losses: Sequence[torch.Tensor], groups: Sequence[Group], step: Step) -> tuple[list[Gradients], int]:
    """Gradients of each group that know their Gramian alone, and the number of backwards."""
    totals = [torch.zeros(len(group.reach), len(group.reach), dtype=torch.float64) for group in groups]
    group_of = {index: (number, group) for number, group in enumerate(groups) for index in group.indices}
    backwards = 0
    for block in blocks_of(sorted(group_of), step):
        rows: list[dict[int, torch.Tensor]] = []
        for k, loss in enumerate(losses):
            reached = [index for index in block if k in group_of[index][1].reach]
            params = [step.places[index].parameter for index in reached]
            row = row_of(step.names[k], loss, params, retain_graph=True) if params else []
            backwards += bool(params)
            rows.append({index: g for index, g in zip(reached, row, strict=True) if g is not None})
        for number in {group_of[index][0] for index in block}:
            group = groups[number]
            indices = [index for index in block if group_of[index][0] == number]
            parts = [
                [_or_zeros(rows[k].get(i), like_reals(step.places[i].parameter)) for i in indices] for k in group.reach
            ]
            totals[number] += Gradients(parts, scale=step.scale).gramian
            del parts
        del rows, row
    return [_known(total, group, step) for total, group in zip(totals, groups, strict=True)], backwards


def _or_zeros(gradient: torch.Tensor | None, param: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(param) if gradient is None else gradient


def blocks_of(indices: Sequence[int], step: Step) -> list[list[int]]:
    """``indices`` of parameters cut into runs whose K gradients are as large as two whole ones."""
    sizes = {index: step.places[index].parameter.numel() for index in indices}
    limit = ALIVE * sum(sizes.values()) / len(step.present)
    blocks: list[list[int]] = []
    room = 0.0
    for index in indices:
        if not blocks or sizes[index] > room:
            blocks.append([])
            room = limit
        blocks[-1].append(index)
        room -= sizes[index]
    return blocks


def _known(gramian: torch.Tensor, group: Group, step: Step) -> Gradients:
    """Gradients of which nothing but the inner products is left."""
    empty = like_reals(step.places[group.indices[0]].parameter).detach().new_empty(0)
    known = Gradients(
        [[empty] for _ in group.reach],
        objectives=[step.present[k] for k in group.reach],
        total=len(step.objectives),
        scale=step.scale,
    )
    known.gramian = gramian
    return known
