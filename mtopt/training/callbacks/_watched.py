"""One metric of one split, and which of two values of it is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mtopt._errors import unknown_name

Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True)
class Watched:
    """What a callback looks at when somebody evaluates."""

    split: str
    metric: str
    mode: Mode

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', found {self.mode!r}")

    def value(self, split: str, values: Mapping[str, float]) -> float | None:
        """The metric; None when another split was evaluated.

        Raises:
            UnknownNameError: the evaluation has no such metric.
        """
        if split != self.split:
            return None
        if self.metric not in values:
            raise unknown_name("metric", self.metric, values)
        return float(values[self.metric])

    def improves(self, value: float, best: float | None, *, by: float = 0.0) -> bool:
        """Whether ``value`` is better than ``best`` by more than ``by``. NaN never is; anything else beats None."""
        if math.isnan(value):
            return False
        if best is None:
            return True
        return value < best - by if self.mode == "min" else value > best + by
