"""A matrix-free step of a rule on several mini-batches, whose weights move by one product of its cross-Gramian."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
import torch

from mtopt.autograd._combine import groups_of, non_finite, rule_of, shared_groups, skipped
from mtopt.autograd._draws import check_same, collections_of
from mtopt.autograd._generators import Generators
from mtopt.autograd._matrix_free import MatrixFree, requested, require_module
from mtopt.autograd._objective import Objective, check_loss, read_losses
from mtopt.autograd._passes import OnGraph
from mtopt.autograd._products import Point
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Request
from mtopt.autograd._rows import Params, trainable
from mtopt.autograd._second_forward import graph_where_needed, run
from mtopt.autograd._step import Group, Private, Step
from mtopt.autograd._weighted import keep_weights
from mtopt.combiners import Combiner, FollowingDraws, list_combiners
from mtopt.linalg import Array, norm_of


def follow_draws(
    draws: Any,
    params: Params,
    combiner: Combiner,
    options: MatrixFree,
    *,
    scaler: Any,
    private: Private,
    strict: bool,
) -> StepRecord:
    """``J1 J2' w`` as ``J1 d``: a weighted backward on the second draw, a product along it on the first, and with the
    weights that the rule makes of it a weighted backward on the third. Nothing is written before all is known."""
    _require_following(combiner, options)
    model = require_module(params)
    places = trainable(params)
    on_first, on_second, on_last = collections_of(draws, combiner)
    plan = f"matrix-free: one weighted backward on draws 1 and 2, one {options.kind} on draw 0"
    last: Request | None = None
    if combiner.kept_weights((), 0) is not None:  # the last draw is all that such a step looks at
        last = requested(on_last, places, scaler)
        kept = keep_weights(last, combiner, None, private, strict)
        if kept is not None:
            return kept
    generators = Generators.of(model)
    first = _First.of(on_first, options.needs_graph)
    second = requested(on_second, places, scaler)
    check_same(first, second, 1)
    source = OnGraph(second.losses())
    step = Step.of(second, private=private, trunk=None, strict=strict, plan=plan)
    groups = groups_of(source.reaches(step), step)
    for values in (first.values, step.values):
        reason = non_finite([], [], replace(step, values=values))
        if reason is not None:
            return skipped(reason, groups, step, backwards=0)
    shared = shared_groups(groups, step)
    rules = [cast(FollowingDraws, rule_of(group, shared, combiner, step)) for group in shared]
    objectives = [tuple(step.present[k] for k in group.reach) for group in shared]
    weights = [rule.weights_to_follow(each) for rule, each in zip(rules, objectives, strict=True)]
    along = source.weighted(shared, shared, weights, combiner, step)
    point = Point(
        model,
        on_first,
        generators,
        first.objectives,
        first.present,
        np.array(first.values),
        first.dtypes,
        step.scale,
        options.needs_graph,
    )
    products = [
        _product(options, point, group, gradients, given.numpy(), step)
        for group, given, (_, gradients) in zip(shared, weights, reversed(along.pieces), strict=True)
    ]
    if not all(np.isfinite(product).all() for product in products):
        reason = "non-finite gradient of the weighted losses, or product with it"
        return skipped(reason, groups, step, backwards=along.backwards)

    last = last or requested(on_last, places, scaler)
    check_same(first, last, 2)
    end = OnGraph(last.losses())
    step = Step.of(last, private=private, trunk=None, strict=strict, plan=plan)
    reason = non_finite([], [], step)
    if reason is not None:
        return skipped(reason, groups, step, backwards=along.backwards)
    groups = groups_of(end.reaches(step), step)
    again = shared_groups(groups, step)
    if [group.reach for group in again] != [group.reach for group in shared]:
        raise ValueError("the losses of the draws reach different parameters; leave plan='matrix_free' out")
    before = combiner.state_dict()  # the gradient of the last draw is known only after the rule has moved on
    moved = [
        rule.weights_of_product(each, product) for rule, each, product in zip(rules, objectives, products, strict=True)
    ]
    result = end.weighted(groups, again, moved, combiner, step)
    backwards = along.backwards + result.backwards
    reason = result.refusal(step)
    if reason is not None:
        combiner.load_state_dict(before)
        return skipped(reason, groups, step, backwards=backwards)
    result.write(step)
    names = step.names
    return StepRecord(
        losses=step.losses,
        weights={names[k]: weight for k, weight in result.weights.items()} or None,
        plan=plan,
        backwards=backwards,
    )


@dataclass(frozen=True, slots=True)
class _First:
    """The losses of the first draw as they are: what the product along a direction is checked, or made, with."""

    objectives: Sequence[Objective]
    present: Sequence[int]
    values: Sequence[float]
    dtypes: Sequence[torch.dtype]

    @classmethod
    def of(cls, losses: Any, needs_graph: bool) -> Self:
        with graph_where_needed(needs_graph, "mtopt.MatrixFree (or to the trainer)"):
            objectives, found = read_losses(run(losses))
        present = [k for k, loss in enumerate(found) if loss is not None]
        given = [check_loss(objectives[k].name, found[k], graph=False) for k in present]
        return cls(objectives, present, [float(loss.detach()) for loss in given], [loss.dtype for loss in given])

    @property
    def names(self) -> list[str]:
        return [self.objectives[k].name for k in self.present]


def _product(
    options: MatrixFree,
    point: Point,
    group: Group,
    gradients: Sequence[torch.Tensor | None],
    weights: Array,
    step: Step,
) -> Array:
    """``J1 d`` (K,) of a group; NaN where d is not finite."""
    reached = [(step.places[i], g) for i, g in zip(group.indices, gradients, strict=True) if g is not None]
    places, direction = [place for place, _ in reached], [g for _, g in reached]
    length = norm_of(direction) / step.scale if direction else 0.0
    if not 0.0 < length < np.inf:
        return np.full(len(weights), 0.0 if length == 0.0 else np.nan)
    full = np.zeros(len(point.present))
    full[list(group.reach)] = weights
    return options.makes()(point, places, direction, length, full)[list(group.reach)]


def _require_following(combiner: Combiner, options: MatrixFree) -> None:
    if not (isinstance(combiner, FollowingDraws) and combiner.matrix_free):
        names = ", ".join(list_combiners(matrix_free=True, draws=combiner.draws))
        raise ValueError(
            f"plan='matrix_free' takes a rule on draws that one product of their Gramian will do for, and {combiner!r} "
            f"needs more: {names}, or Every around it"
        )
    default = MatrixFree()
    if (options.iterations, options.rate) != (default.iterations, default.rate):
        raise ValueError(
            f"iterations and rate are of rules that follow their weights, and {combiner!r} makes its own step; leave "
            "them out of MatrixFree"
        )
