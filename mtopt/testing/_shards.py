"""Whether a rule on coordinates may be given a part of them in each of several processes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue

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
        with ThreadPoolExecutor(2) as pool:
            halves = [_columns(cases, 0, cut), _columns(cases, cut, expected.shape[1])]
            found = list(pool.map(partial(_Halves().run, subject), range(2), halves))
        if any(half is None for half in found):
            subject.fail("the halves do not ask for the same sums over columns; leave shardable out")
        subject.expect_close(
            torch.cat(found, 1),  # type: ignore[arg-type]
            expected,
            1e-12,
            f"the direction in two halves {brief(found[0])} and that of all columns",  # type: ignore[arg-type]
        )


def _columns(cases: list[Case], start: int, end: int) -> list[Case]:
    return [Case(case.name, case.jacobian[:, start:end], case.losses) for case in cases]


class _OtherSumsError(Exception):
    """The other half does not ask for this sum."""


class _Halves:
    """Two threads that add up what they ask for, one sum after the other."""

    def __init__(self) -> None:
        self.inboxes: list[SimpleQueue[torch.Tensor | None]] = [SimpleQueue(), SimpleQueue()]

    def run(self, subject: Subject, number: int, cases: list[Case]) -> torch.Tensor | None:
        """The directions of one of them; None where the other one asks for other sums."""
        mine, others = self.inboxes[number], self.inboxes[1 - number]

        def add(table: torch.Tensor) -> torch.Tensor:
            others.put(table)
            other = mine.get()
            if other is None:
                raise _OtherSumsError
            return table + other

        rule = subject.fresh()
        try:
            with columns_in_parts(add):
                found = torch.stack([rule(case.jacobian, case.losses) for case in cases])
        except _OtherSumsError:
            return None
        finally:
            others.put(None)
        return found if mine.get() is None else None
