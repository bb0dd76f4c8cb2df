"""Checks of hyper-parameters, one line each in a rule: ``check_positive(gamma=gamma)``."""

from __future__ import annotations

import math
from typing import Any

_OPEN = {"(": True, "[": False, ")": True, "]": False}


def check_positive(**values: float) -> None:
    """Raise ValueError unless every number is above zero."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name} must be positive, found {value}")


def check_positive_or_none(**values: float | None) -> None:
    """Raise ValueError unless every value is None or above zero."""
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive or None, found {value}")


def check_non_negative(**values: float) -> None:
    """Raise ValueError unless every number is at least zero."""
    for name, value in values.items():
        if not value >= 0:
            raise ValueError(f"{name} must be non-negative, found {value}")


def check_finite(**values: float) -> None:
    """Raise ValueError unless every number is finite and at least zero."""
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and non-negative, found {value}")


def check_interval(interval: str, **values: float) -> None:
    """Raise ValueError unless every number is in an interval such as ``"[0, 1)"``."""
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name, value in values.items():
        above = value > low if _OPEN[interval[0]] else value >= low
        below = value < high if _OPEN[interval[-1]] else value <= high
        if not (above and below):
            raise ValueError(f"{name} must be in {interval}, found {value}")


def check_choice(*options: Any, **values: Any) -> None:
    """Raise ValueError unless every value is one of the options."""
    for name, value in values.items():
        if value not in options:
            listed = ", ".join(map(repr, options[:-1])) + f" or {options[-1]!r}"
            raise ValueError(f"{name} must be {listed}, found {value!r}")


def check_whole(least: int, **values: int) -> None:
    """Raise ValueError unless every value is an int, and at least ``least``."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, found {value!r}")
