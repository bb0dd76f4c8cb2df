"""The rule under test, how it is asked, and how a failure is reported."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import torch

from mtopt.combiners import Combiner, Outcome
from mtopt.linalg import Gradients
from mtopt.testing import samplers


class CheckError(AssertionError):
    """A rule does not do what every rule promises: the message names the check, the input and what was found."""


@dataclass(frozen=True)
class Case:
    """One input: a Jacobian, loss values, and words for both.

    Attributes:
        dependent: it was drawn so that rows depend on each other; ``rounded``: but for their rounding, which the dtype
            decides; ``cancels``: a sum of all rows with positive factors is zero.
    """

    name: str
    jacobian: torch.Tensor
    losses: torch.Tensor
    dependent: bool = False
    rounded: bool = False
    cancels: bool = False

    def __str__(self) -> str:
        rows, columns = self.jacobian.shape
        dtype = str(self.jacobian.dtype).removeprefix("torch.")
        return f"{self.name} ({rows} x {columns}, {dtype})"

    def scaled(self, factor: float) -> Case:
        return replace(self, name=f"{self.name} times {factor:g}", jacobian=self.jacobian * factor)

    def to(self, dtype: torch.dtype) -> Case:
        return replace(self, jacobian=self.jacobian.to(dtype))

    def rows(self, order: Sequence[int], why: str) -> Case:
        at = list(order)
        return replace(self, name=f"{self.name}, {why}", jacobian=self.jacobian[at], losses=self.losses[at])


class Subject:
    """A rule under test. Every question goes to a rule without a past.

    Args:
        rule: what fresh rules are made of.
        objectives: the numbers of objectives to try.
        columns: the number of columns, where the rule takes no other; None for any.
        seed: of the samplers.
        draws: of each family of dependent rows, for each number of objectives.
        many: a number of objectives for dependent rows alone.
    """

    def __init__(
        self,
        rule: Combiner,
        objectives: Sequence[int],
        columns: int | None,
        seed: int,
        draws: int = 1,
        many: Sequence[int] = (),
    ) -> None:
        self.rule = rule
        try:
            self.label = repr(rule)
        except AttributeError:  # a hyper-parameter that is not stored, of which a check will tell
            self.label = f"{type(rule).__name__}(...)"
        self.objectives = tuple(objectives)
        self.columns = columns
        self.seed = seed
        self.draws = draws
        self.many = tuple(many)
        self.check = ""
        self.case: Case | None = None

    # -- asking ---------------------------------------------------------------------------------------------------

    def fresh(self) -> Combiner:
        return self.rule.fresh()

    def direction(self, case: Case, rule: Combiner | None = None) -> torch.Tensor:
        """The answer to a Jacobian; a rule on several draws gets it as each of them."""
        self.case = case
        rule = self.fresh() if rule is None else rule
        jacobian = case.jacobian
        return rule(jacobian.expand(rule.draws, -1, -1) if rule.draws > 1 else jacobian, case.losses)

    def outcome(
        self, case: Case, rule: Combiner | None = None, at: Sequence[int] | None = None, total: int | None = None
    ) -> Outcome:
        """What the engine gets, for rows of the objectives ``at`` out of ``total``."""
        self.case = case
        rule = self.fresh() if rule is None else rule
        gradients = Gradients.of(case.jacobian, objectives=at, total=total)
        if rule.draws > 1:
            return rule.combine_draws([gradients] * rule.draws, case.losses)
        return rule.combine(gradients, case.losses)

    # -- inputs ---------------------------------------------------------------------------------------------------

    def size(self, rows: int, *, short: bool = False) -> int:
        """The number of columns for a case with so many rows; fewer than rows for a short one."""
        return self.columns or (max(1, rows // 2) if short else 12)

    def made(self, name: str, jacobian: torch.Tensor) -> Case:
        return Case(name, jacobian, samplers.losses(self.seed, len(jacobian)))

    def generic(self, rows: int, offset: int = 0) -> Case:
        seed = self.seed + offset
        return self.made(f"normal entries, seed {seed}", samplers.generic(seed, rows, self.size(rows)))

    def regular(self) -> Iterator[Case]:
        """Inputs on which nothing is degenerate."""
        for rows in self.objectives:
            yield self.generic(rows)
            columns = self.size(rows)
            yield self.made("conflicting rows", samplers.conflicting(self.seed + 1, rows, columns))
            yield self.made("agreeing rows", samplers.agreeing(self.seed + 2, rows, columns))

    def on_grid(self, rows: int) -> Case:
        """Entries that every dtype holds exactly, and so do float32 products of them: no rule may tell dtypes apart."""
        jacobian = (samplers.generic(self.seed, rows, self.size(rows)).clamp(-3.5, 3.5) * 8).round() / 8
        return self.made("normal entries rounded to 1/8", jacobian)

    def degenerate(self) -> Iterator[Case]:
        """Zero, equal, opposite, parallel and dependent rows, more rows than columns, stationary points."""
        return (replace(case, dependent=True) for case in self._degenerate())

    def _degenerate(self) -> Iterator[Case]:
        for rows in self.objectives:
            columns = self.size(rows)
            row = samplers.generic(self.seed + 3, 1, columns)
            normal = samplers.generic(self.seed + 4, rows, columns)
            yield self.made("all rows zero", torch.zeros(rows, columns, dtype=torch.float64))
            yield self.made("equal rows", row.repeat(rows, 1))
            yield self.made("parallel rows", row * torch.arange(1, rows + 1)[:, None])
            yield self.made("parallel rows over 12 decades", samplers.with_row_scales(row.repeat(rows, 1), 6.0))
            for index in {0, rows - 1}:
                one_zero = normal.clone()
                one_zero[index] = 0.0
                yield self.made(f"row {index} zero", one_zero)
            short = self.size(rows, short=True)
            yield self.made("rows longer than columns are many", samplers.generic(self.seed + 5, rows, short))
            if rows > 1:
                signs = torch.tensor([1.0, -1.0]).repeat(rows)[:rows, None].double()
                yield self.made("opposite rows", row * signs)
                yield self.made("opposite rows over 12 decades", samplers.with_row_scales(row * signs, 6.0))
                yield self.made("two opposite rows", torch.cat([-normal[1:2], normal[1:]]))
                rank = min(rows, columns) - 1
                yield self.made(f"rank {rank}", samplers.of_rank(self.seed + 6, rows, columns, rank))
                yield from self.stationary(rows)

    def stationary(self, rows: int) -> Iterator[Case]:
        columns = self.size(rows)
        for involved in sorted({2, rows}):
            name = f"Pareto-stationary in {involved} rows"
            yield self.made(name, samplers.stationary(self.seed + 7, rows, columns, involved))

    def ill_scaled(self) -> Iterator[Case]:
        """Rows whose norms span twelve decades."""
        for rows in self.objectives:
            for offset in range(2):
                jacobian = samplers.with_row_scales(self.generic(rows, offset).jacobian, 6.0, offset)
                yield self.made(f"normal rows over 12 decades, seed {self.seed + offset}", jacobian)

    def dependent(self) -> Iterator[Case]:
        """Rows of every family of dependent ones, plain and over twelve decades, with fewer and with more columns."""
        for rows in sorted({*self.objectives, *self.many} - {1}):
            for index, (family, draw) in enumerate(samplers.DEPENDENT.items()):
                for turn in range(self.draws if rows in self.objectives else max(1, self.draws // 3)):
                    seed = self.seed + turn
                    dice = random.Random(1000 * seed + 10 * rows + index)
                    columns = self.columns or dice.choice((max(1, rows // 2), max(1, rows - 1), rows, 2 * rows + 4))
                    jacobian, words = draw(seed, rows, columns), f"{family}, seed {seed}"
                    rounded = draw is samplers.stationary
                    cancels = self.cancels(family, rows)
                    decades, exact = dice.choice((0.0, 0.0, 6.0)), dice.random() < 0.5
                    if decades:
                        jacobian = samplers.with_row_scales(jacobian, decades, seed, exact=exact)
                        words += " over 12 decades" + (" of powers of two" if exact else "")
                        rounded = rounded or not exact
                    yield replace(
                        self.made(words, jacobian), dependent=True, rounded=rounded, cancels=cancels and not rounded
                    )

    @staticmethod
    def cancels(family: str, rows: int) -> bool:
        return family == "rows that sum to zero" or (family == "opposite pairs" and rows % 2 == 0)

    # -- judging --------------------------------------------------------------------------------------------------

    def expect(self, holds: bool, found: str) -> None:
        if not holds:
            self.fail(found)

    def failure(self, found: str) -> CheckError:
        where = f" on {self.case}" if self.case is not None else ""
        return CheckError(f"{self.label} fails the check {self.check!r}{where}: {found}")

    def fail(self, found: str) -> NoReturn:
        raise self.failure(found)

    def expect_close(
        self, found: torch.Tensor, expected: torch.Tensor, tolerance: float, what: str, floor: float = 0.0
    ) -> None:
        """Equal within ``tolerance`` times the larger length, and an absolute ``floor``."""
        found, expected = found.double(), expected.double()
        scale = float(torch.stack([found.abs().max(), expected.abs().max()]).max()) if found.numel() else 0.0
        gap = float((found - expected).abs().max()) if found.numel() else 0.0
        if not gap <= tolerance * scale + floor:
            relative = gap / scale if scale else gap
            self.fail(f"{what} differ by {relative:.2g} of their size: {brief(found)} and {brief(expected)}")


def brief(vector: torch.Tensor) -> str:
    """A vector in a few words."""
    numbers = ", ".join(f"{value:.4g}" for value in vector.flatten()[:6].tolist())
    return f"[{numbers}{', ...' if vector.numel() > 6 else ''}]"


def unit(vector: torch.Tensor) -> torch.Tensor:
    """``vector`` over its length, zero for zero; without overflow or underflow on the way."""
    largest = vector.abs().max()
    if float(largest) == 0.0:
        return vector
    vector = vector / largest
    scaled: torch.Tensor = vector / vector.norm()
    return scaled
