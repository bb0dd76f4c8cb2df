"""Time of the steps, in interleaved rounds of one process."""

from __future__ import annotations

import gc
import statistics
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from ._floor import Step
from ._lines import PEERS, Line
from .models import build

FEWEST_ROUNDS = 3
SHORTEST = 4e-3
"""Seconds that a sample takes at least: several steps of a small model."""


@dataclass(frozen=True)
class Cell:
    """A model at one K on so many threads.

    Attributes:
        model, tasks, threads: which.
        size: D, entries of a gradient of the trunk.
        cpu, wall: by line, seconds a step, one entry a round; CPU time is the process's, on a CPU.
        failed: lines that a library could not run, with its words.
    """

    model: str
    tasks: int
    threads: int
    size: int
    cpu: dict[str, list[float]] = field(default_factory=dict)
    wall: dict[str, list[float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> dict[str, list[float]]:
        """What counts: CPU time on one thread, which other work on the machine moves least; wall time otherwise."""
        return self.cpu if self.threads == 1 and self.cpu else self.wall

    def median(self, line: str) -> float:
        return statistics.median(self.seconds[line])

    def ratio(self, line: str, base: str) -> Spread | None:
        """Of a line to another one; None where one of them is missing."""
        if line not in self.seconds or base not in self.seconds:
            return None
        pairs = zip(self.seconds[line], self.seconds[base], strict=True)
        return Spread.of([mine / other for mine, other in pairs])


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of the ratios in each round."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Spread:
        if len(ratios) < 2:
            return cls(ratios[0], ratios[0], ratios[0])
        low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass
class _Side:
    line: Line
    step: Step
    repeats: int = 1


def time_cell(
    model: str, tasks: int, threads: int, chosen: Iterable[Line], *, rounds: int, seconds: float, device: str = "cpu"
) -> Cell:
    """Samples of every line in turn, ``rounds`` times or until ``seconds`` have passed (but three times at least)."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        cell = Cell(model, tasks, threads, build(model, tasks).shared_size)
        sides = [side for line in chosen if (side := _started(line, cell, device)) is not None]
        for side in sides:
            cell.wall[side.line.name] = []
            if device == "cpu":
                cell.cpu[side.line.name] = []
        begun = time.monotonic()
        for turn in range(rounds):
            if turn >= FEWEST_ROUNDS and time.monotonic() - begun > seconds:
                break
            gc.collect()
            gc.disable()
            for side in sides if turn % 2 else reversed(sides):
                _sample(side, cell, device)
            gc.enable()
        return cell
    finally:
        gc.enable()
        torch.set_num_threads(before)


def _started(line: Line, cell: Cell, device: str) -> _Side | None:
    """A line with its set-up done, and as many steps per sample as fill it."""
    try:
        side = _Side(line, line.make(build(cell.model, cell.tasks, device)), line.steps)
        side.step()
    except Exception as error:  # whatever another library raises is a finding, and stands under the table
        if line.kind not in PEERS:
            raise
        cell.failed[line.name] = f"{type(error).__name__}: {error}".splitlines()[0]
        return None
    _, once = _timed(_Side(line, side.step), device)
    side.repeats = line.steps * max(1, round(SHORTEST / (line.steps * max(once, 1e-6))))
    for _ in range((-2) % line.steps):  # a sample begins where a cycle does
        side.step()
    return side


def _sample(side: _Side, cell: Cell, device: str) -> None:
    cpu, wall = _timed(side, device)
    cell.wall[side.line.name].append(wall)
    if device == "cpu":
        cell.cpu[side.line.name].append(cpu)


def _timed(side: _Side, device: str) -> tuple[float, float]:
    """CPU and wall seconds per step."""
    _wait(device)
    step, repeats = side.step, range(side.repeats)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' deprecations
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in repeats:
            step()
        _wait(device)
        return (time.process_time() - cpu) / side.repeats, (time.perf_counter() - wall) / side.repeats


def _wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()
