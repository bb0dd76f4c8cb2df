"""What a step is to cost at most, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ._memory import MIB, Memory
from .step import Cell, Spread


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of a line's time to another one's; ``only``: the K it is set for."""

    what: str
    line: str
    base: str
    limit: float
    only: int | None = None


_FLOOR, _LOSS = "Gramian rule / hand-written loop", "loss rule / plain sum"
_FREE = "matrix-free / plain sum"

TARGETS = (
    Target(_FLOOR, "mgda", "hand-written, mgda", 1.05),
    Target(_FLOOR, "mgda, rows", "hand-written, mgda", 1.05),
    Target(_FLOOR, "upgrad", "hand-written, upgrad", 1.05),
    Target(_LOSS, "linear", "plain sum", 1.02),
    Target(_LOSS, "uw", "plain sum", 1.02),
    Target("two batches / concatenated batch", "ngdiff, two batches", "concatenated batch", 1.06, only=2),
    Target(
        "two batches / hand-written on two batches", "ngdiff, two batches", "hand-written, two batches", 1.06, only=2
    ),
    Target("weights every 10 steps / plain sum", "Every(mgda, 10)", "plain sum", 1.7, only=8),
    Target(_FREE, "mgda, matrix-free exact", "plain sum", 2.5),
    Target(_FREE, "nash_mtl, matrix-free exact", "plain sum", 2.5),
    Target(_FREE, "mgda, matrix-free displacement", "plain sum", 1.7),
    Target(_FREE, "nash_mtl, matrix-free displacement", "plain sum", 1.7),
)

NAMES = tuple(dict.fromkeys(name for target in TARGETS for name in (target.base, target.line)))
"""The lines that targets are about, each next to what it is compared with."""

MEMORY_LIMIT = 1.2
"""Jacobians that a Gramian rule's step may take beyond a plain one."""


@dataclass(frozen=True)
class Verdict:
    """A target at one place, and what was found."""

    what: str
    line: str
    limit: float
    model: str
    tasks: int
    threads: int
    found: Spread

    @property
    def met(self) -> bool:
        return self.found.median <= self.limit


def time_verdicts(cells: Sequence[Cell]) -> Iterator[Verdict]:
    """Every target in every cell that has its lines."""
    for target in TARGETS:
        for cell in cells:
            found = cell.ratio(target.line, target.base)
            if found is not None and target.only in (None, cell.tasks):
                yield Verdict(target.what, target.line, target.limit, cell.model, cell.tasks, cell.threads, found)


def jacobians(memory: Memory, plain: Memory, tasks: int, size: int) -> dict[str, float]:
    """What a step takes beyond the plain one, in Jacobians of float32, by the way it was measured."""
    one = 4 * tasks * size / MIB
    return {
        name: (mine - other) / one
        for name in ("resident", "returning", "tensors")
        if (mine := getattr(memory, name)) is not None and (other := getattr(plain, name)) is not None
    }


def memory_verdicts(
    weighed: Mapping[tuple[str, int], Mapping[str, Memory]], sizes: Mapping[str, int]
) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Model, K and the Jacobians that ``mgda`` takes with its rows kept."""
    for (model, tasks), found in weighed.items():
        if "mgda, rows" in found and "plain sum" in found:
            yield model, tasks, jacobians(found["mgda, rows"], found["plain sum"], tasks, sizes[model])
