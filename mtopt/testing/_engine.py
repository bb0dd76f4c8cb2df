"""Checks of a rule in ``mtopt.backward``."""

from __future__ import annotations

from typing import Any

import torch

from mtopt.autograd import StepRecord, backward
from mtopt.combiners import Combiner
from mtopt.testing._state import same
from mtopt.testing._subject import Case, Subject, brief


def step_in_a_loop(subject: Subject) -> None:
    """``mtopt.backward`` writes the direction of the rule, in each of three steps."""
    for rows in subject.objectives:
        rule, direct = subject.fresh(), subject.fresh()
        for step in range(3):
            case = subject.generic(rows, 200 + step)
            expected = subject.direction(case, direct)
            found, record = _step(case, rule)
            subject.expect(found is not None and not record.skipped, f"the step was skipped: {record.reason}")
            assert found is not None
            subject.expect_close(found, expected, 1e-9, "the .grad of mtopt.backward and the direction")


def skipped_step(subject: Subject) -> None:
    """A NaN or infinite loss skips the step: nothing is written, and the state stays. So does such a gradient, for a
    rule on gradients."""
    for rows in subject.objectives:
        rule = subject.fresh()
        case = subject.generic(rows, 200)
        subject.case = case
        _step(case, rule)
        before = rule.state_dict()
        for bad in ("loss", *(["gradient"] if rule.needs != "losses" else [])):
            found, record = _step(case, rule, bad=bad)
            subject.expect(record.skipped, f"a NaN {bad} did not skip the step")
            subject.expect(found is None, f"a NaN {bad} left {brief(found) if found is not None else ''} in .grad")
            subject.expect(same(rule.state_dict(), before), f"a step skipped for a NaN {bad} changed the state")


def losses_after_the_step(subject: Subject) -> None:
    """A rule that declares ``reevaluates`` awaits the losses after its weights, and takes them once."""
    if not subject.rule.reevaluates:
        return
    for rows in subject.objectives:
        rule = subject.fresh()
        subject.expect(not rule.awaits_losses, "a new rule awaits losses before any step")
        case = subject.generic(rows)
        subject.direction(case, rule)
        subject.expect(rule.awaits_losses, "it does not await the losses after a step")
        before = rule.state_dict()
        rule.reevaluate(case.losses * torch.linspace(0.5, 0.9, rows))
        subject.expect(not same(rule.state_dict(), before), "the losses after the step changed nothing")
        subject.expect(not rule.awaits_losses, "it awaits the losses after a step twice")


def _step(case: Case, rule: Combiner, bad: str = "") -> tuple[torch.Tensor | None, StepRecord]:
    """One step on losses with the gradients and values of the case."""
    point = torch.zeros(case.jacobian.shape[1], dtype=torch.float64, requires_grad=True)

    def losses() -> list[torch.Tensor]:
        values = list((case.jacobian * point).sum(1) + case.losses)
        if bad == "loss":
            values[-1] = values[-1] * torch.nan
        elif bad == "gradient":
            values[-1] = values[-1] + point.abs().sqrt().sum()  # its slope at zero is infinite
        return values

    given: Any = [losses() for _ in range(rule.draws)] if rule.draws > 1 else losses if rule.revisits else losses()
    record = backward(given, [point], rule)
    return point.grad, record
