"""Whether a rule on coordinates may be given a part of them in each of several processes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtopt.linalg import columns_in_parts
from mtopt.testing._state import STEPS
from mtopt.testing._subject import Case, Subject, brief


def halves_of_the_columns(subject: Subject) -> None:
    """A rule on coordinates that declares ``shardable`` gives two that hold some of the columns each their part of the
    direction that it gives of all, step after step."""
    rule = subject.rule
    if rule.needs != "jacobian" or not rule.shardable or subject.columns is not None:
        return
    for rows in subject.objectives:
        cases = [subject.generic(rows, 100 + step) for step in range(STEPS)]
        whole = subject.fresh()
        expected = torch.stack([subject.direction(case, whole) for case in cases])
        cut = expected.shape[1] // 2 - 1
        found = _ask_halves(subject, [_columns(cases, 0, cut), _columns(cases, cut, expected.shape[1])])
        what = f"the direction in two halves {brief(found)} and that of all columns"
        subject.expect_close(found, expected, 1e-12, what)


def _columns(cases: Sequence[Case], start: int, end: int) -> list[Case]:
    return [Case(case.name, case.jacobian[:, start:end], case.losses) for case in cases]


class _SumAsked(Exception):
    """A rule asks for a sum over all columns, of which this is its part."""

    def __init__(self, table: torch.Tensor) -> None:
        self.table = table


def _ask_halves(subject: Subject, halves: Sequence[list[Case]]) -> torch.Tensor:
    """The directions of two that share the columns.

    Each starts anew for every sum that they ask for, until all of them are known.
    """
    totals: list[torch.Tensor] = []
    while True:
        found = [_run_to_next_sum(subject, cases, totals) for cases in halves]
        asked = [each.table for each in found if isinstance(each, _SumAsked)]
        given = [each for each in found if isinstance(each, torch.Tensor)]
        if not asked:
            return torch.cat(given, 1)
        if given or asked[0].shape != asked[1].shape:
            subject.fail("the halves do not ask for the same sums over columns; leave shardable out")
        totals.append(asked[0] + asked[1])


def _run_to_next_sum(
    subject: Subject, cases: Sequence[Case], totals: Sequence[torch.Tensor]
) -> torch.Tensor | _SumAsked:
    """The directions of a rule without a past, or the first sum that it asks for and that is not known."""
    known = iter(totals)

    def add(table: torch.Tensor) -> torch.Tensor:
        total = next(known, None)
        if total is None:
            raise _SumAsked(table)
        return total.clone()

    rule = subject.fresh()
    try:
        with columns_in_parts(add):
            return torch.stack([rule(case.jacobian, case.losses) for case in cases])
    except _SumAsked as asked:
        return asked
