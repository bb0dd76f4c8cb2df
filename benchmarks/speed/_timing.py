"""Interleaved timings of callables over a drifting sequence of Gramians."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

SEQUENCE = 32
"""Gramians of one K; a side that gets through them starts again."""

JUDGED = 4
"""Answers of each side that the errors are taken over: those to the first Gramians."""

FEWEST_ROUNDS = 3
DRIFT = 0.3
"""Sine of the angle, about, between a gradient and the same one a call later."""


def drifting_gradients(count: int, calls: int = SEQUENCE, seed: int = 0) -> list[torch.Tensor]:
    """Factors (K, K) of the Gramians of K gradients of 2 K + 2 coordinates, float64, lower triangular.

    The gradients have nine tenths of their mean taken out, so that most conflict with it; their norms differ by about
    a factor of ten at K = 128; and all turn a little from call to call, so that a warm start helps, but does not do.
    """
    generator = torch.Generator().manual_seed(1000 * count + seed)

    def noise() -> torch.Tensor:
        return torch.randn(count, 2 * count + 2, generator=generator, dtype=torch.float64)

    scales = torch.exp(0.5 * torch.randn(count, 1, generator=generator, dtype=torch.float64))
    gradients, factors = noise(), []
    for _ in range(calls):
        jacobian = scales * (gradients - 0.9 * gradients.mean(0))
        factors.append(torch.linalg.cholesky(jacobian @ jacobian.T))
        gradients = math.sqrt(1.0 - DRIFT**2) * gradients + DRIFT * noise()
    return factors


@dataclass
class Side:
    """One of the callables compared, with what was measured of it.

    Attributes:
        call: what is timed.
        inputs: what it is called with, one after the other.
        clock: seconds; a call is too short for it alone, so one sample times several.
        seconds: CPU time of a call, one entry per sample.
        answers: to the first ``JUDGED`` inputs.
    """

    call: Callable[[torch.Tensor], torch.Tensor]
    inputs: Sequence[torch.Tensor]
    clock: Callable[[], float] = time.process_time
    seconds: list[float] = field(default_factory=list)
    answers: list[torch.Tensor] = field(default_factory=list)
    _calls: int = 1
    _next: int = 0

    def start(self, sample: float) -> None:
        """Two calls that do not count: imports and set-up, then how many calls fill ``sample`` seconds."""
        self._timed(1)
        self._calls = max(1, min(len(self.inputs), math.ceil(sample / max(self._timed(1), 1e-9))))

    def sample(self) -> None:
        self.seconds.append(self._timed(self._calls))

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def _timed(self, calls: int) -> float:
        """Seconds a call, over the next ``calls`` inputs."""
        chosen = [self.inputs[(self._next + i) % len(self.inputs)] for i in range(calls)]
        call, answers = self.call, []
        started = self.clock()
        for given in chosen:
            answers.append(call(given))  # noqa: PERF401  (a frame of a comprehension is no part of the call)
        elapsed = self.clock() - started
        self._next += calls
        self.answers.extend(answers[: JUDGED - len(self.answers)])
        return elapsed / calls


def interleave(
    sides: Sequence[Side], *, rounds: int, seconds: float, sample: float = 2e-3, collecting: bool = False
) -> None:
    """Samples of every side, in turn, ``rounds`` times or until ``seconds`` have passed (but three times at least).

    ``collecting``: garbage is collected on the way, as it is in training.
    """
    begun = time.monotonic()
    with nullcontext() if collecting else _no_collection():
        for side in sides:
            side.start(sample)
        for turn in range(rounds):
            if turn >= FEWEST_ROUNDS and time.monotonic() - begun > seconds:
                return
            for side in sides if turn % 2 else reversed(sides):
                side.sample()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without a garbage collection in the middle of a call, as timeit does."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
