"""The step of a rule that gives its weights without gradients: one backward of the weighted losses."""

from __future__ import annotations

import torch

from mtopt.autograd._combine import groups_of, non_finite, rule_of, shared_groups, skipped
from mtopt.autograd._finite import state_before
from mtopt.autograd._graph import leaves_behind
from mtopt.autograd._passes import OnGraph, Weighted, seeds
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Features, Request, boundary_of
from mtopt.autograd._step import Group, Private, Step
from mtopt.autograd._write import spoil
from mtopt.combiners import Combiner


def weigh_losses(request: Request, combiner: Combiner, strict: bool) -> StepRecord:
    """The step of a rule that needs only the losses."""
    losses = request.losses()
    plan = "one weighted backward: the rule needs only the losses"
    step = Step.of(request, private="weighted", trunk=None, strict=strict, plan=plan)
    reason = non_finite([], [], step)
    if reason is not None:
        record = step.skip(reason, backwards=0)
        if request.scaled:
            reached = leaves_behind(losses)
            spoil(p for p in request.params if id(p) in reached)
        return record
    before = state_before(combiner, [], step)
    weights = combiner.weigh(step.minimised, step.present, len(step.objectives)).tolist()
    gradients = torch.autograd.grad(
        losses, request.params, seeds(losses, weights), retain_graph=request.retain_graph, allow_unused=True
    )
    if all(gradient is None for gradient in gradients):
        raise ValueError(f"none of the losses {step.names} reaches params; give the parameters they were computed from")
    found = Weighted([(range(len(gradients)), gradients)], dict(enumerate(weights)), 1)
    reason = found.refusal(step)
    if reason is not None:
        if before is not None:
            combiner.load_state_dict(before)
        indices = [index for index, gradient in enumerate(gradients) if gradient is not None]
        return skipped(reason, [Group(tuple(range(len(losses))), True, indices)], step, backwards=1)
    found.write(step)
    return _record(found.weights, combiner, step, backwards=1)


def keep_weights(
    request: Request, combiner: Combiner, features: Features, private: Private, strict: bool
) -> StepRecord | None:
    """The step of a rule that keeps the weights of an earlier one; None where it keeps none for these losses.

    Gradients are looked at before they are written, as those of any rule on gradients are: a step that is skipped does
    not count as one with these weights.
    """
    total = len(request.objectives)
    if combiner.kept_weights((), total) is None or not request.all_tensors:
        return None
    source = OnGraph(request.losses())
    trunk = None if features is None else leaves_behind(boundary_of(features))
    step = Step.of(request, private=private, trunk=trunk, strict=strict, plan=f"{source.plan}: the rule keeps weights")
    groups = groups_of(source.reaches(step), step)
    shared = shared_groups(groups, step)
    rules = [rule_of(group, shared, combiner, step) for group in shared]
    objectives = [tuple(step.present[k] for k in group.reach) for group in shared]
    kept = [rule.kept_weights(present, total) for rule, present in zip(rules, objectives, strict=True)]
    weights = [given for given in kept if given is not None]
    if len(weights) < len(kept):
        return None
    reason = non_finite([], [], step)
    if reason is not None:
        return skipped(reason, groups, step, backwards=0)
    found = source.weighted(groups, shared, weights, combiner, step, retain_graph=request.retain_graph)
    if found.backwards > 1:
        step = step.with_plan(f"{step.plan}; {found.backwards - 1} more for what not all the losses reach")
    reason = found.refusal(step)
    if reason is not None:
        return skipped(reason, groups, step, backwards=found.backwards)
    for rule, present in zip(rules, objectives, strict=True):
        rule.keep(present, total)
    found.write(step)
    return _record(found.weights, combiner, step, backwards=found.backwards)


def _record(weights: dict[int, float], combiner: Combiner, step: Step, *, backwards: int) -> StepRecord:
    return StepRecord(
        losses=step.losses,
        weights={step.names[k]: weight for k, weight in weights.items()} or None,
        certificate=combiner.certificate,
        plan=step.plan,
        backwards=backwards,
    )
