"""Who says what is tried next: scrambled Halton points, or a sampler of Optuna that learns from the scores so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mtopt._errors import unknown_name
from mtopt.experiments._optuna import SAMPLERS, OptunaTuner, require_optuna
from mtopt.experiments._space import Point, SearchSpace, halton

HALTON = "halton"

TUNERS = (HALTON, *SAMPLERS)


class Tuner(Protocol):
    """Proposes points of a search space in rounds; trial 0 is always the rule's defaults, None instead of a point."""

    def propose(self) -> Sequence[Point | None]:
        """The trials of the next round; empty when all are done."""

    def observe(self, scores: Sequence[float]) -> None:
        """Take the scores of that round, each larger the better."""


class HaltonTuner:
    """All trials in one round: the defaults, then points of the scrambled Halton sequence."""

    def __init__(self, space: SearchSpace, trials: int, *, seed: int) -> None:
        self._left: list[Point | None] = [None, *halton(space.dimension, trials - 1, seed=seed)]

    def propose(self) -> Sequence[Point | None]:
        proposed, self._left = self._left, []
        return proposed

    def observe(self, scores: Sequence[float]) -> None:
        """Nothing is learnt from them."""


def check_tuner(name: str, storage: str | None) -> None:
    """Raise UnknownNameError for a tuner that there is not, and ValueError for one that cannot be used so."""
    if name not in TUNERS:
        raise unknown_name("tuning", name, TUNERS)
    if name in SAMPLERS:
        require_optuna()
    elif storage is not None:
        raise ValueError(f"tuning_storage keeps Optuna's studies, and tuning {name!r} has none; leave it out")


def make_tuner(name: str, space: SearchSpace, trials: int, *, seed: int, study: str, storage: str | None) -> Tuner:
    """The tuner of that name; ``study`` is what Optuna's storage calls its trials."""
    if name == HALTON:
        return HaltonTuner(space, trials, seed=seed)
    return OptunaTuner(name, space, trials, seed=seed, study=study, storage=storage)
