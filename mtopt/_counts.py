"""Counts that users give."""

from __future__ import annotations


def check_count(argument: str, value: int | None) -> int | None:
    """``value`` itself, which must be a positive int or None."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{argument} must be a positive int or None, found {value!r}")
    return value
