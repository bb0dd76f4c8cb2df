"""Checks of the directions that a rule gives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mtopt.combiners import Combiner, JacobianCombiner
from mtopt.linalg import gramian_of
from mtopt.testing._promises import VIOLATION, data_scale, tells_the_rank
from mtopt.testing._subject import Case, Subject, brief, unit

DTYPES = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2, torch.float32: 1e-5, torch.float64: 0.0}
"""What a direction of each dtype may be off, relative to its largest entry."""

FACTORS = (2.0**-66, 2.0**66)
"""1e-20 and 1e20, as powers of two: multiplying by them rounds nothing."""


def dtypes_and_shapes(subject: Subject) -> None:
    """The direction is (D,), in the dtype of the rows, and that of the same rows in float64 but for rounding."""
    for rows in subject.objectives:
        for dtype, tolerance in DTYPES.items():
            case = subject.on_grid(rows).to(dtype)
            found = subject.direction(case)
            shape = case.jacobian.shape[1:]
            subject.expect(found.shape == shape, f"the direction has shape {tuple(found.shape)}, not {tuple(shape)}")
            subject.expect(found.dtype == dtype, f"the direction has dtype {found.dtype}")
            subject.expect(not found.requires_grad, "the direction requires gradients")
            rule = subject.fresh()
            if isinstance(rule, JacobianCombiner):
                raw = rule.direction(case.jacobian, case.losses)
                subject.expect(raw.dtype == dtype, f"the method direction gave dtype {raw.dtype}")
            expected = subject.direction(case.to(torch.float64))
            subject.case = case
            subject.expect_close(found, expected, tolerance, "the direction and that in float64")


def input_is_left_alone(subject: Subject) -> None:
    """Neither the Jacobian nor the losses change, and the direction is memory of its own."""
    for case in subject.regular():
        jacobian, losses = case.jacobian.clone(), case.losses.clone()
        direction = subject.direction(case)
        subject.expect(torch.equal(case.jacobian, jacobian), "the Jacobian was changed")
        subject.expect(torch.equal(case.losses, losses), "the losses were changed")
        direction.fill_(math.nan)
        subject.expect(torch.equal(case.jacobian, jacobian), "the direction shares memory with the Jacobian")


def degenerate_rows(subject: Subject) -> None:
    """Zero, equal, opposite, parallel and dependent rows, K > D and stationary points have finite answers."""
    for case in subject.degenerate():
        for dtype in (torch.float64, torch.float32):
            found = subject.direction(case.to(dtype))
            subject.expect(bool(found.isfinite().all()), f"the direction is {brief(found)}")
            if case.name == "all rows zero":
                subject.expect(not bool(found.any()), f"the direction is {brief(found)}, not zero")


def parallel_rows(subject: Subject) -> None:
    """Rows along one line have an answer on that line, if the rule weighs rows; a single row is never ascended."""
    for case in subject.degenerate():
        if not case.name.startswith(("equal", "parallel")):
            continue
        found, row = unit(subject.direction(case)), unit(case.jacobian[0])
        if subject.rule.weighted:
            subject.expect_close(found, (found @ row) * row, 1e-7, "the direction and its part along the rows", 1e-7)
        if len(case.jacobian) == 1:
            subject.expect(bool((found * row >= -1e-9).all()), f"{brief(found)} ascends the only gradient {brief(row)}")


def row_scales(subject: Subject) -> None:
    """Rows whose norms span twelve decades have a finite answer, in float32, too."""
    for case in subject.ill_scaled():
        for dtype in (torch.float64, torch.float32):
            found = subject.direction(case.to(dtype))
            subject.expect(bool(found.isfinite().all()), f"the direction is {brief(found)}")


def scale_of_all(subject: Subject) -> None:
    """The direction for c times the Jacobian is finite for c from 1e-20 to 1e20, and for a homogeneous rule the same up
    to its length."""
    exact = [subject.on_grid(rows).to(torch.float32) for rows in subject.objectives]
    for case in [*subject.regular(), *subject.ill_scaled(), *exact]:
        if subject.rule.homogeneous:
            expect_homogeneous(subject, case)
            continue
        for factor in FACTORS:
            found = subject.direction(case.scaled(factor))
            subject.expect(bool(found.isfinite().all()), f"the direction is {brief(found)}")


def expect_homogeneous(subject: Subject, case: Case) -> None:
    """The same direction for multiples of the Jacobian, up to its length."""
    base = subject.direction(case).double()
    resolved = float(base.norm()) > 1e-9 * data_scale(subject, case).usual  # or it is rounding
    for factor in FACTORS:
        found = subject.direction(case.scaled(factor)).double()
        subject.expect(bool(found.isfinite().all()), f"the direction is {brief(found)}")
        if resolved:
            subject.expect_close(unit(found), unit(base), 1e-6, "the directions, both of length one,")


def scale_of_one(subject: Subject) -> None:
    """Where ``scale_invariant`` is declared: a factor on one loss changes at most the length, in three steps."""
    if not subject.rule.scale_invariant:
        return
    for rows in subject.objectives:
        for scaled in range(rows):
            for factor in (1e-6, 1e3):
                factors = torch.ones(rows, dtype=torch.float64)
                factors[scaled] = factor
                plain, other = subject.fresh(), subject.fresh()
                for step in range(3):
                    case = subject.generic(rows, step)
                    expected = subject.direction(case, plain)
                    name = f"{case.name}, loss {scaled} times {factor:g}, step {step}"
                    found = subject.direction(
                        Case(name, case.jacobian * factors[:, None], case.losses * factors), other
                    )
                    subject.expect_close(unit(found), unit(expected), 1e-6, "the directions, both of length one,")


def order_of_rows(subject: Subject) -> None:
    """Permuted objectives have the same direction, unless the rule or a hyper-parameter tells them apart."""
    if is_symmetric(subject.rule):
        for case in [*subject.regular(), *subject.ill_scaled()]:
            expect_symmetric(subject, case)


def order_of_dependent_rows(subject: Subject) -> None:
    """Permuted objectives have the same direction where rows depend on each other, if the rule carries no state."""
    if is_symmetric(subject.rule) and not subject.rule.stateful:
        for case in subject.dependent():
            for dtype in (torch.float64, torch.float32):
                cast = case.to(dtype)
                if not case.rounded and (subject.rule.continuous or tells_the_rank(cast.jacobian)):
                    expect_symmetric(subject, cast)


def is_symmetric(rule: Combiner) -> bool:
    """Whether the rule promises not to tell objectives apart."""
    return rule.symmetric and not rule.stochastic and not _names_objectives(rule.hyperparameters)


def expect_symmetric(subject: Subject, case: Case) -> None:
    """The same direction for the objectives in other orders."""
    rows, dtype = len(case.jacobian), case.jacobian.dtype
    expected = subject.direction(case)
    scale = data_scale(subject, case)
    tolerance = VIOLATION[dtype] if case.dependent else 1e-7
    floor = tolerance * scale.usual + scale.rounding(dtype) if case.dependent else 1e-12 * scale.usual
    for order in (list(range(rows))[::-1], [*range(1, rows), 0]):
        found = subject.direction(case.rows(order, f"in the order {order}"))
        subject.expect_close(found, expected, tolerance, "the directions of two orders", floor)


def rows_know_their_objectives(subject: Subject) -> None:
    """Rows handed over in another order, each with its objective, have the same direction."""
    if subject.rule.stochastic:
        return
    for rows in subject.objectives:
        plain, other = subject.fresh(), subject.fresh()
        for step in range(3):
            case = subject.generic(rows, step)
            order = list(range(rows))[::-1] if step else list(range(rows))
            turned = case.rows(order, f"objectives {order}, step {step}")
            expected = direction_of(subject, case, plain)
            found = direction_of(subject, turned, other, order)
            subject.expect_close(found, expected, 1e-7, "the directions of two orders")


def gramian_is_enough(subject: Subject) -> None:
    """A rule on losses, norms or the Gramian answers with weights that give its direction, from these alone."""
    rule = subject.rule
    if rule.needs == "jacobian" or not rule.weighted or rule.draws > 1:
        return
    for case in [*subject.regular(), *subject.ill_scaled()]:
        answer = _weights(subject, case, torch.float64)
        subject.expect(answer.shape == case.losses.shape, f"weights has shape {tuple(answer.shape)}")
        expected = subject.direction(case)
        floor = 1e-12 * data_scale(subject, case).usual
        subject.expect_close(answer @ case.jacobian, expected, 1e-9, "weights @ jacobian and the direction", floor)
        low = _weights(subject, case, torch.float32) if "decades" not in case.name else None
        if low is not None:
            subject.expect(low.dtype == torch.float32, f"weights has dtype {low.dtype} for float32")


def promised_weights(subject: Subject) -> None:
    """A rule that declares ``weighted`` gives one finite weight a row."""
    for case in subject.regular():
        weights = subject.outcome(case).weights
        if weights is None:
            subject.expect(not subject.rule.weighted, "it gave no weights; declare weighted = False")
        else:
            subject.expect(weights.shape == case.losses.shape, f"weights have shape {tuple(weights.shape)}")
            subject.expect(bool(weights.isfinite().all()), f"weights are {brief(weights)}")


def signs_of_losses(subject: Subject) -> None:
    """Negative losses have a finite answer, or a ValueError where ``positive_losses`` is declared; and losses from 1e-6
    to 1e6 a finite one."""
    for rows in subject.objectives:
        case = subject.generic(rows)
        spread = Case(f"{case.name}, losses over 12 decades", case.jacobian, torch.logspace(-6, 6, rows).double())
        found = subject.direction(spread)
        subject.expect(bool(found.isfinite().all()), f"the direction is {brief(found)}")
        negative = Case(f"{case.name}, all losses negative", case.jacobian, -case.losses)
        if subject.rule.positive_losses:
            try:
                found = subject.direction(negative)
            except ValueError:
                continue
            subject.fail("positive_losses is declared, and a negative loss is not refused with a ValueError")
        found = subject.direction(negative)
        subject.expect(bool(found.isfinite().all()), f"the direction is {brief(found)}")


def direction_of(
    subject: Subject, case: Case, rule: Any, at: Sequence[int] | None = None, total: int | None = None
) -> torch.Tensor:
    """The direction by the engine's entry."""
    outcome = subject.outcome(case, rule, at, total)
    if outcome.direction is not None:
        return outcome.direction
    assert outcome.weights is not None
    return outcome.weights.to(case.jacobian) @ case.jacobian


def _weights(subject: Subject, case: Case, dtype: torch.dtype) -> torch.Tensor:
    subject.case = case
    rule: Any = subject.fresh()
    if rule.needs == "losses":
        found = rule.weights(case.losses.to(dtype))
    else:
        found = rule.weights(gramian_of(case.jacobian).to(dtype), case.losses)
    subject.expect(isinstance(found, torch.Tensor), f"weights gave {type(found).__name__}, not a tensor")
    return found  # type: ignore[no-any-return]


def _names_objectives(hyperparameters: dict[str, Any]) -> bool:
    """Whether a hyper-parameter has an entry for each objective, or a wrapped rule's has."""
    for value in hyperparameters.values():
        inner = getattr(value, "hyperparameters", None)
        if isinstance(inner, dict) and _names_objectives(inner):
            return True
        if not isinstance(value, str) and hasattr(value, "__len__"):
            return True
    return False
