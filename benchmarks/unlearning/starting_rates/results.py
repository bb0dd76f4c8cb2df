"""What the rows say: every method over the eight rates, and who depends on the first rate least."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from .training import Row

PAPERS = "NGDiff+GeN"
KEPT = 0.9
"""The share of the utility before unlearning that a rate must keep to be counted as one that works."""


@dataclass(frozen=True)
class Spread:
    """Utility over the starting rates: for each seed over its rates, then the mean over the seeds."""

    median: float
    worst: float
    best: float

    @classmethod
    def of(cls, utilities: Sequence[Sequence[float]]) -> Spread:
        """Of (seeds, rates)."""
        table = np.asarray(utilities)
        return cls(*(float(reduce(table, axis=1).mean()) for reduce in (np.median, np.min, np.max)))


@dataclass(frozen=True)
class Standing:
    """One method in one arm.

    Args:
        method: its name.
        equal: utility at equal forgetting; 0 from a rate that never gets there.
        end: utility after the budget; 0 from a rate after which the model still knows more than a retrained one.
        rates: from how many of the eight rates it gets to equal forgetting, a mean over the seeds.
        works, lasts: from how many of them at least 90 % of the utility before unlearning is left then, or at the end.
    """

    method: str
    equal: Spread
    end: Spread
    rates: float
    works: float
    lasts: float


def arms_of(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], list[Row]]]:
    """The rows of each world and optimizer, in the order in which they come first."""
    order = list(dict.fromkeys((row.case.world, row.case.optimizer) for row in rows))
    for arm in order:
        yield arm, [row for row in rows if (row.case.world, row.case.optimizer) == arm]


def standings(rows: Sequence[Row]) -> list[Standing]:
    """Every method of one arm, the highest median at equal forgetting first."""
    found = []
    for method in dict.fromkeys(row.case.method for row in rows):
        own = sorted((row for row in rows if row.case.method == method), key=lambda row: row.case.seed)
        seeds = [list(group) for _, group in groupby(own, key=lambda row: row.case.seed)]
        equal = [[row.equal or 0.0 for row in seed] for seed in seeds]
        end = [[row.end if row.forgotten else 0.0 for row in seed] for seed in seeds]
        rates = _count([[row.equal is not None for row in seed] for seed in seeds])
        least = [[KEPT * row.untouched for row in seed] for seed in seeds]
        works, lasts = _count(np.greater_equal(equal, least)), _count(np.greater_equal(end, least))
        found.append(Standing(method, Spread.of(equal), Spread.of(end), rates, works, lasts))
    return sorted(found, key=lambda standing: (-standing.equal.median, -standing.works))


def _count(there: npt.ArrayLike) -> float:
    """How many of the rates, a mean over the seeds, for (seeds, rates)."""
    return float(np.sum(there, axis=1).mean())


def table(rows: Sequence[Row]) -> str:
    """Markdown, a table for each arm, with the utility before unlearning above it."""
    parts = []
    for (world, optimizer), own in arms_of(rows):
        untouched = np.mean([row.untouched for row in own])
        lines = [
            f"World *{world}*, {optimizer} (utility before unlearning {untouched:.3f}):",
            "",
            "| method | rates that forget | and keep 90 % | utility then: median | best | keep 90 % at the end "
            "| utility then: median | best |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for found in standings(own):
            equal, end = (f"{spread.median:.3f} | {spread.best:.3f}" for spread in (found.equal, found.end))
            counts = f"{found.rates:.1f} | {found.works:.1f}"
            lines.append(f"| {found.method} | {counts} | {equal} | {found.lasts:.1f} | {end} |")
        worst = max(spread.worst for found in standings(own) for spread in (found.equal, found.end))
        lines.append(f"\nThe worst of the eight rates leaves {worst:.3f} or less, whatever the method.")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def claim(rows: Sequence[Row]) -> str:
    """Whether NGDiff+GeN depends on its first rate least, in words: by the median over the rates, in every arm."""
    lines = []
    counts = {"equal": 0, "end": 0}
    for (world, optimizer), own in arms_of(rows):
        found = standings(own)
        said = []
        for part, name in (("equal", "at equal forgetting"), ("end", "at the end")):
            medians = {standing.method: getattr(standing, part).median for standing in found}
            first = max(medians, key=lambda method: medians[method])
            mine = medians.get(PAPERS)
            if mine is None:
                said.append(f"{name} {first} has the highest median ({medians[first]:.3f})")
                continue
            place = 1 + sum(value > mine for value in medians.values())
            counts[part] += place == 1 and mine > 0
            said.append(
                f"{name} {first} has the highest median ({medians[first]:.3f}), {PAPERS} {mine:.3f}, place {place}"
            )
        lines.append(f"- {world}, {optimizer}: {'; '.join(said)}.")
    arms = len(lines)
    lines.append(
        f"{PAPERS} has the highest median over its first rates in {counts['equal']} of {arms} arms at equal "
        f"forgetting, and in {counts['end']} of {arms} at the end."
    )
    return "\n".join(lines)
