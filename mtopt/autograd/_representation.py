"""The step of a rule that weighs by gradients of the shared representation: one backward of the trunk, whatever K."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtopt.autograd._combine import (
    gradients_of,
    groups_of,
    non_finite,
    reach_of_rows,
    record_of,
    rule_of,
    skipped,
)
from mtopt.autograd._complex import as_gradient, like_reals
from mtopt.autograd._finite import WHAT, Piece, refusal, state_before
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Features, Request, boundary_of, trunk_behind
from mtopt.autograd._retained import set_aside
from mtopt.autograd._rows import Row, require_reach, row_of
from mtopt.autograd._step import Group, Private, Step
from mtopt.autograd._write import write_pieces
from mtopt.combiners import Combiner
from mtopt.linalg import Gradients

PLAN = "features only: the rule weighs by the gradients of the representation, then one trunk backward"


def weigh_representation(
    request: Request, combiner: Combiner, features: Features, private: Private, strict: bool
) -> StepRecord | None:
    """Weights from the gradients with respect to ``features``, applied in one backward of what is behind them.

    Parameters that only the heads have get what ``private`` says, or the rule applied to their rows where several
    losses reach them. None where ``features`` do not stand for the trunk, since a loss reaches it around them.
    """
    if features is None or not request.all_tensors:
        return None
    losses, boundary = request.losses(), boundary_of(features)
    trunk, obstacle = trunk_behind(boundary, losses, request.params)
    if obstacle is not None:
        return None
    outside = [None if id(p) in trunk else p for p in request.params]
    heads = [p for p in outside if p is not None]
    ends = [
        row_of(name, loss, [*boundary, *heads], retain_graph=True)
        for name, loss in zip(request.names, losses, strict=True)
    ]
    for name, row in zip(request.names, ends, strict=True):
        require_reach(name, row)
    step = Step.of(request, private=private, trunk=trunk, strict=strict, plan=PLAN)
    reach = tuple(k for k, row in enumerate(ends) if any(g is not None for g in row[: len(boundary)]))
    representation = Gradients(
        [_dense(ends[k][: len(boundary)], boundary) for k in reach],
        objectives=[step.present[k] for k in reach],
        total=len(step.objectives),
        scale=step.scale,
    )
    rows = [_spread(row[len(boundary) :], outside) for row in ends]
    groups = groups_of(reach_of_rows(rows), step)
    gradients = [gradients_of(group, rows, step) for group in groups]
    behind = [i for i, p in enumerate(outside) if p is None]
    main = Group(reach, shared=True, indices=behind)
    reason = non_finite([main, *groups], [representation, *gradients], step)
    if reason is not None:
        return skipped(reason, [main, *groups], step, backwards=0)

    before = state_before(combiner, [representation], step)
    weights = combiner.combine(representation, step.minimised[list(reach)]).weights
    assert weights is not None
    by_loss = dict(zip(reach, weights.tolist(), strict=True))
    pieces: list[Piece] = []
    for group, found in zip(groups, gradients, strict=True):
        given = _head_weights(group, found, main, by_loss, combiner, step)
        pieces.append((group.indices, found.combined(given)))
    trained = [step.places[i].parameter for i in behind]
    if trained:  # all frozen, the heads are left to train
        with set_aside(boundary):  # where they retain their gradient they have had it from the heads
            cotangents = [as_gradient(g, f) for g, f in zip(representation.combined(weights), boundary, strict=True)]
            through = torch.autograd.grad(
                boundary, trained, cotangents, retain_graph=request.retain_graph, allow_unused=True
            )
        pieces.append((behind, [g if g is None else g.clone() for g in through]))
    reason = refusal(pieces, step, what=WHAT)
    if reason is not None:
        if before is not None:
            combiner.load_state_dict(before)
        return skipped(reason, [main, *groups], step, backwards=1)
    write_pieces(pieces, step)
    return record_of((main, representation), by_loss, combiner, step, backwards=1)


def _head_weights(
    group: Group, gradients: Gradients, main: Group, by_loss: dict[int, float], combiner: Combiner, step: Step
) -> torch.Tensor:
    """The weights of the losses that reach a group of the heads' parameters."""
    if step.private != "own":
        return torch.tensor([by_loss.get(k, 1.0) for k in group.reach], dtype=torch.float64)
    if len(group.reach) == 1:
        return torch.ones(1, dtype=torch.float64)
    weights = rule_of(group, [main], combiner, step).combine(gradients, step.minimised[list(group.reach)]).weights
    assert weights is not None
    return weights


def _dense(row: Row, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.zeros_like(like_reals(t)) if g is None else g for g, t in zip(row, like, strict=True)]


def _spread(row: Row, params: Sequence[torch.Tensor | None]) -> Row:
    """A row over the heads' parameters as one over all parameters, with None for those of the trunk."""
    gradients = iter(row)
    return [None if param is None else next(gradients) for param in params]
