"""What a store may hold: the shape of a request and of a result, checked before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any

Number = int | float
_MOST_BITS = 1023  # of a whole number below the largest float


@dataclass(frozen=True, slots=True)
class Maybe:
    """None, or of that shape."""

    shape: Any


@dataclass(frozen=True, slots=True)
class Absent:
    """Of that shape, or not there at all: older stores lack it."""

    shape: Any


@dataclass(frozen=True, slots=True)
class Values:
    """An object with any names, whose values are of that shape."""

    shape: Any


TASK: dict[str, Any] = {
    "name": str,
    "title": str,
    "objectives": [{"name": str, "sense": str}],
    "labels": [str],
    "reference_point": [Number],
    "learning_rates": [Number],
    "front": Maybe([[Number]]),
    "front_hypervolume": Maybe(Number),
    "landscape": Maybe({"x": [Number], "y": [Number], "z": [[Number]], "pareto_set": [[Number]]}),
    "position_labels": [str],
    "start": Maybe(str),
    "views": [[str]],
    "axis_labels": Values(str),
}

REQUEST: dict[str, Any] = {
    "suites": [{"name": str, "about": str, "tasks": [TASK]}],
    "cells": [
        {
            **dict.fromkeys(("suite", "task", "combiner", "chosen"), str),
            **{name: [str] for name in ("tune", "final", "front")},
            "sweep": Absent([str]),
            "static": Absent(bool),
            "options": dict,
        }
    ],
    "budgets": [
        {
            **dict.fromkeys(("suite", "task"), str),
            **dict.fromkeys(("steps", "points", "trials", "seeds", "evaluations"), int),
        }
    ],
    "asked": Absent(dict),
    "tuning": Absent({"name": str, "package": Absent(str)}),
    "quick": bool,
    "environment": dict,
}

RESULT: dict[str, Any] = {
    "score": {"validation": Number, "test": Number},
    "points": {"validation": [[Number]], "test": [[Number]]},
    "metrics": Values([Number]),
    "paths": [Values([Number])],
    "landmarks": Values(Values(Number)),
    "curves": [Values([Maybe(Number)])],
    "positions": [[[Number]]],
    "cost": dict.fromkeys(("cpu_seconds", "steps", "backwards_per_step", "peak_bytes"), Number),
    "environment": Absent(dict),
    "nonfinite": Absent(Maybe(str)),
    "skipped": Number,
    "conflict_rate": Maybe(Number),
    "cosine": Maybe(Number),
}

FAILED: dict[str, Any] = {"error": str, "environment": Absent(dict)}

ROW: dict[str, Any] = {
    **dict.fromkeys(("key", "suite", "task", "combiner", "hyperparameters", "status", "result", "finished"), str),
    **dict.fromkeys(("seed", "steps", "points"), int),
    "learning_rate": Number,
}


def check_shape(value: Any, shape: Any, where: str) -> None:
    """Check that ``value``, which messages call ``where``, is of that shape.

    A shape is a type; a list of one, for any number of it; a mapping of names that must be there; :class:`Maybe`,
    :class:`Absent` or :class:`Values`.

    Raises:
        ValueError: it is not; the message names the place in it.
    """
    if isinstance(shape, Maybe):
        if value is not None:
            check_shape(value, shape.shape, where)
    elif isinstance(shape, Values):
        _check_kind(value, dict, where)
        for name, each in value.items():
            check_shape(each, shape.shape, f"{where}[{name!r}]")
    elif isinstance(shape, Mapping):
        _check_kind(value, dict, where)
        for name, each in shape.items():
            if isinstance(each, Absent):
                if name in value:
                    check_shape(value[name], each.shape, f"{where}[{name!r}]")
                continue
            if name not in value:
                raise ValueError(f"{where} lacks {name!r}")
            check_shape(value[name], each, f"{where}[{name!r}]")
    elif isinstance(shape, list):
        _check_kind(value, list, where)
        for index, each in enumerate(value):
            check_shape(each, shape[0], f"{where}[{index}]")
    else:
        _check_kind(value, shape, where)


def _check_kind(value: Any, kind: type | UnionType, where: str) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = "number" if kind == Number else getattr(kind, "__name__", str(kind))
        raise ValueError(f"{where} must be a {wanted}, found {repr(value)[:60]}")
    if kind == Number and isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"{where} must be a number that a float holds, found one of {len(str(value))} digits")
