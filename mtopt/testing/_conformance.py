"""``check_combiner``: all that a rule promises, tried out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from mtopt._errors import unknown_name
from mtopt.combiners import Combiner, create_combiner
from mtopt.testing import _answers, _engine, _promises, _shards, _state
from mtopt.testing._subject import Case, CheckError, Subject, brief

OBJECTIVES = (1, 2, 3, 7)

MANY = (16,)
"""Objectives tried beside these on dependent rows alone."""

_CHECKS: tuple[Callable[[Subject], None], ...] = (
    _state.declarations,
    _state.hyperparameters,
    _answers.dtypes_and_shapes,
    _answers.input_is_left_alone,
    _answers.degenerate_rows,
    _answers.parallel_rows,
    _answers.row_scales,
    _answers.scale_of_all,
    _answers.scale_of_one,
    _answers.order_of_rows,
    _answers.order_of_dependent_rows,
    _answers.rows_know_their_objectives,
    _answers.gramian_is_enough,
    _answers.promised_weights,
    _promises.dependent_rows,
    _promises.no_conflict,
    _promises.certificates,
    _answers.signs_of_losses,
    _state.determinism,
    _state.state_is_declared,
    _state.state_round_trip,
    _state.non_finite_rows,
    _state.absent_objectives,
    _shards.halves_of_the_columns,
    _engine.step_in_a_loop,
    _engine.skipped_step,
    _engine.losses_after_the_step,
)


def list_checks() -> dict[str, str]:
    """The names of the checks that :func:`check_combiner` makes, each with what it asks for."""
    return {check.__name__: " ".join((check.__doc__ or "").split()) for check in _CHECKS}


def check_combiner(
    rule: str | type[Combiner] | Combiner,
    *,
    objectives: Sequence[int] | None = None,
    columns: int | None = None,
    seed: int = 0,
    draws: int = 3,
    skip: Collection[str] = (),
) -> None:
    """Check that a rule keeps what every rule promises, and what its traits declare.

    ::

        mtopt.testing.check_combiner("inverse_norm")

    Finite answers for row scales over twelve decades and J from 1e-20 to 1e20, for zero, equal, opposite, parallel and
    dependent rows, K = 1 and K > D; the declared behaviour under scaling, permutation and conflict, and an honest
    certificate, in float64, float32 and bfloat16; dtypes; NaN; state through a file; absent losses; determinism under a
    seed; the step in ``mtopt.backward``. See :func:`list_checks`.

    Args:
        rule: a registered name, a class that needs no arguments, or a rule, which is left as it is: every question goes
            to ``rule.fresh()``.
        objectives: the numbers of objectives to try. Default: 1, 2, 3 and 7 (and 16 that depend on each other), or the
            rule's ``exact_objectives``. Give one where a hyper-parameter, such as a preference, has an entry for each.
        columns: the number of columns of all Jacobians, for a rule that takes no other. Default: 12, and fewer.
        seed: of the inputs.
        draws: of each family of dependent rows (:data:`samplers.DEPENDENT`), for each number of objectives: some
            thousands for a thorough test.
        skip: names of checks to leave out.

    Raises:
        CheckError: an AssertionError that names the rule, the check, the input and what was found.
        UnknownNameError: no rule, or no check, of that name.
        TypeError: ``rule`` is no rule.
    """
    for name in skip:
        if name not in list_checks():
            raise unknown_name("check", name, list_checks())
    subject = _subject(rule, objectives, columns, seed, draws)
    for check in _CHECKS:
        if check.__name__ not in skip:
            _run(subject, check)


def check_answer(rule: str | type[Combiner] | Combiner, jacobian: torch.Tensor, losses: torch.Tensor) -> None:
    """Check the answer of a rule to one float64 Jacobian (K, D) with positive losses (K,): for drawn inputs.

    It must be finite and, as far as the rule's traits promise this, the same for the rows in another order, the same up
    to its length for multiples of the Jacobian, and without conflicts.

    Raises:
        CheckError: as :func:`check_combiner`.
    """
    subject = _subject(rule, [len(jacobian)], jacobian.shape[1], 0)
    case = Case("the given Jacobian", jacobian, losses)

    def answer(subject: Subject) -> None:
        found = subject.direction(case)
        subject.expect(found.shape == jacobian.shape[1:], f"the direction has shape {tuple(found.shape)}")
        subject.expect(bool(found.isfinite().all()), f"the direction is {brief(found)}")
        if subject.rule.non_conflicting:
            _promises.expect_no_conflict(subject, case)
        if subject.rule.homogeneous:
            _answers.expect_homogeneous(subject, case)
        if _answers.is_symmetric(subject.rule):
            _answers.expect_symmetric(subject, case)

    _run(subject, answer)


def _subject(
    rule: str | type[Combiner] | Combiner,
    objectives: Sequence[int] | None,
    columns: int | None,
    seed: int,
    draws: int = 1,
) -> Subject:
    made = create_combiner(rule) if isinstance(rule, str) else rule
    if isinstance(made, type) and issubclass(made, Combiner):
        made = made()
    if not isinstance(made, Combiner):
        raise TypeError(f"rule must be a Combiner, its class or its name, found {rule!r}")
    if objectives or made.exact_objectives is not None:
        return Subject(made, objectives or (made.exact_objectives or 1,), columns, seed, draws)
    return Subject(made, OBJECTIVES, columns, seed, draws, MANY)


def _run(subject: Subject, check: Callable[[Subject], None]) -> None:
    subject.check, subject.case = check.__name__, None
    try:
        check(subject)
    except CheckError:
        raise
    except Exception as error:  # whatever a rule under test raises is what the check has found
        raise subject.failure(f"it raised {type(error).__name__}: {error}") from error
