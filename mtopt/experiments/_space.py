"""What is tuned of a contestant, as a unit cube that any sampler can fill."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtopt.combiners import Combiner
from mtopt.experiments._contestant import Contestant
from mtopt.experiments._task import Budget, Task

Point = Sequence[float]
"""Coordinates in [0, 1]."""


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The unit cube of one contestant's configurations on one task.

    Attributes:
        rates: ends of the learning rate's range, logarithmic; the first coordinate.
        ranges: the rule's ``search_space`` without what the contestant fixes; a coordinate each.
        weights: objectives whose preference is tuned, by the last ``weights - 1`` coordinates; 0 where it is not.
        defaults: the rule's own values of what is tuned.
    """

    rates: tuple[float, float]
    ranges: Mapping[str, tuple[Any, ...]]
    weights: int
    defaults: Mapping[str, Any]

    @property
    def dimension(self) -> int:
        """How many coordinates a point has."""
        return 1 + len(self.ranges) + max(self.weights - 1, 0)

    @property
    def options(self) -> list[int]:
        """For each coordinate the number of values to choose from; 0 where it is continuous."""
        counts = [len(spec) - 1 if spec[0] == "choice" else 0 for spec in self.ranges.values()]
        return [0, *counts, *[0] * max(self.weights - 1, 0)]

    def configuration(self, point: Point) -> tuple[float, dict[str, Any]]:
        """The learning rate and the hyper-parameters at a point."""
        low, high = self.rates
        rate = low * (high / low) ** point[0]
        values = {name: _value(spec, u) for (name, spec), u in zip(self.ranges.items(), point[1:], strict=False)}
        if self.weights:
            values["preference"] = simplex_point(point[1 + len(self.ranges) :])
        return rate, values

    def default_point(self) -> list[float] | None:
        """Where the first trial lies: the middle learning rate and the rule's defaults, moved into their ranges.

        None where a default is nothing that its range can hold.
        """
        coordinates = [_coordinate(spec, self.defaults.get(name)) for name, spec in self.ranges.items()]
        shares = [(k + 1) / self.weights for k in range(self.weights - 1)]  # an equal preference
        known = [u for u in coordinates if u is not None]
        return [0.5, *known, *shares] if len(known) == len(coordinates) else None


def search_space(task: Task, entry: Contestant, budget: Budget) -> SearchSpace:
    """What is tuned of a contestant on a task: a preference, too, where a run is one training."""
    rule, fixed = entry.rule, entry.hyperparameters
    free = takes_preference(rule) and "preference" not in fixed and budget.points == 1
    low, high = task.learning_rates
    ranges = {name: spec for name, spec in rule.search_space.items() if name not in fixed}
    defaults = rule.hyperparameter_defaults()
    return SearchSpace(
        rates=(low, high),
        ranges=ranges,
        weights=len(task.objectives) if free else 0,
        defaults={name: defaults.get(name) for name in ranges},
    )


def takes_preference(rule: type[Combiner]) -> bool:
    """Whether the rule can be told how much each objective matters."""
    return "preference" in rule.hyperparameter_defaults()


def seed_of(suite: str, task: str) -> int:
    """The seed of a task's trials: the same for every rule."""
    return zlib.crc32(f"{suite}/{task}".encode())


def halton(dimension: int, count: int, *, seed: int) -> list[list[float]]:
    """``count`` points of the scrambled Halton sequence in the unit cube."""
    if count <= 0:
        return []
    from scipy.stats import qmc

    sampler = qmc.Halton(d=dimension, scramble=True, rng=np.random.default_rng(seed))
    return [list(map(float, row)) for row in sampler.random(count)]


def simplex_point(cube: Point) -> list[float]:
    """A preference from K - 1 coordinates in [0, 1], uniform on the simplex when they are."""
    cuts = [0.0, *sorted(cube), 1.0]
    shares = [round(b - a, 4) for a, b in itertools.pairwise(cuts)]
    shares[-1] = round(1.0 - sum(shares[:-1]), 4)
    return shares


def _value(spec: tuple[Any, ...], u: float) -> Any:
    """A value of a search range: ``("log", low, high)``, ``("uniform", low, high)`` or ``("choice", *options)``."""
    kind, *rest = spec
    if kind == "log":
        low, high = rest
        return float(f"{low * (high / low) ** u:.3g}")
    if kind == "uniform":
        low, high = rest
        return float(f"{low + (high - low) * u:.3g}")
    if kind == "choice":
        return rest[min(int(u * len(rest)), len(rest) - 1)]
    raise ValueError(f"a search range is ('log', low, high), ('uniform', low, high) or ('choice', ...), found {spec!r}")


def _coordinate(spec: tuple[Any, ...], value: Any) -> float | None:
    """The inverse of :func:`_value`, moved into the range; None for what it cannot hold."""
    kind, *rest = spec
    if kind == "choice":
        return (rest.index(value) + 0.5) / len(rest) if value in rest else None
    if not isinstance(value, int | float) or (kind == "log" and value <= 0):
        return None
    low, high = rest
    if low == high:
        return 0.5
    share = math.log(value / low) / math.log(high / low) if kind == "log" else (value - low) / (high - low)
    return min(max(share, 0.0), 1.0)
