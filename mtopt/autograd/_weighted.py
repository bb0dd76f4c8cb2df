"""The step of a rule that gives its weights without gradients: one backward of the weighted losses."""

from __future__ import annotations

import torch

from mtopt.autograd._combine import groups_of, non_finite, rule_of, shared_groups, skipped
from mtopt.autograd._graph import leaves_behind
from mtopt.autograd._passes import OnGraph, seeds
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Features, Request, boundary_of
from mtopt.autograd._step import Private, Step
from mtopt.autograd._write import make_writable, spoil
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
    weights = combiner.weigh(step.minimised, step.present, len(step.objectives)).tolist()
    make_writable(request.params)
    before = [_state_of(p.grad) for p in request.params]
    torch.autograd.backward(losses, seeds(losses, weights), inputs=request.params)
    if all(_state_of(p.grad) == state for p, state in zip(request.params, before, strict=True)):
        raise ValueError(f"none of the losses {step.names} reaches params; give the parameters they were computed from")
    return _record(dict(enumerate(weights)), combiner, step, backwards=1)


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
    found = source.weighted(groups, shared, weights, combiner, step)
    if found.backwards > 1:
        step = step.with_plan(f"{step.plan}; {found.backwards - 1} more for what not all the losses reach")
    if not found.finite:
        return skipped("non-finite gradient of the weighted losses", groups, step, backwards=found.backwards)
    for rule, present in zip(rules, objectives, strict=True):
        rule.keep(present, total)
    found.write(step)
    return _record(found.weights, combiner, step, backwards=found.backwards)


def _state_of(gradient: torch.Tensor | None) -> tuple[int, int] | None:
    return None if gradient is None else (id(gradient), gradient._version)


def _record(weights: dict[int, float], combiner: Combiner, step: Step, *, backwards: int) -> StepRecord:
    return StepRecord(
        losses=step.losses,
        weights={step.names[k]: weight for k, weight in weights.items()} or None,
        certificate=combiner.certificate,
        plan=step.plan,
        backwards=backwards,
    )
