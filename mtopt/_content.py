"""Content that was read from a checkpoint: where it does not fit, one error says so and names the part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from mtopt._errors import CheckpointError

# What Python, numpy and torch raise over a value of the wrong kind, shape or size.
FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_ADVICE = "it was written by another program or version, or is damaged; go on from another checkpoint"


@contextmanager
def content_of(part: str) -> Iterator[None]:
    """Within the block content is taken over and nothing else: what that raises is a :class:`CheckpointError`."""
    try:
        yield
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except FAULTS as error:
        found = f"{type(error).__name__}: {error}".split("\n")[0][:200]
        raise CheckpointError(f"its {part} cannot be taken over ({found}); {_ADVICE}") from error


def check_whole(value: Any, part: str) -> int:
    """``value``, which must be a whole number from 0.

    Raises:
        CheckpointError: it is none.
    """
    if type(value) is not int or value < 0:
        raise CheckpointError(f"its {part} must be a whole number from 0, found {value!r:.60}; {_ADVICE}")
    return value


def check_number(value: Any, part: str) -> float | None:
    """``value``, which must be a number, or None.

    Raises:
        CheckpointError: it is neither.
    """
    if value is None or type(value) in (int, float):
        return None if value is None else float(value)
    raise CheckpointError(f"its {part} must be a number or None, found {value!r:.60}; {_ADVICE}")


def check_mapping(value: Any, part: str, keys: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """``value``, which must be a mapping with these keys at least.

    Raises:
        CheckpointError: it is none.
    """
    if not isinstance(value, Mapping):
        raise CheckpointError(f"its {part} must be a dictionary, found {value!r:.60}; {_ADVICE}")
    if missing := [key for key in keys if key not in value]:
        raise CheckpointError(f"its {part} lacks {missing}; {_ADVICE}")
    return value


def check_alike(fresh: Any, value: Any, part: str) -> None:
    """Check that ``value`` can be what ``fresh``, the state of a new object, has become.

    Numbers for a number, a flag for a flag, a text for a text, a tensor of the same dtype and as many dimensions for a
    tensor; for a list or a tuple that has entries as many, else entries of one kind; its keys for a dictionary, but
    for flags that another version had not. What is None at first can be anything.

    Raises:
        CheckpointError: it cannot; the message says where.
    """
    if isinstance(fresh, dict):
        if type(fresh) is dict:  # a Counter's keys are values
            check_mapping(value, part, tuple(k for k, v in fresh.items() if not (v is None or isinstance(v, bool))))
            for key in (key for key in fresh if key in value):
                check_alike(fresh[key], value[key], f"{part}, {key}")
            return
        good = isinstance(value, dict)
    elif isinstance(fresh, list | tuple):
        good = isinstance(value, list | tuple) and (
            len(value) == len(fresh) if fresh else len({type(entry) for entry in value if entry is not None}) <= 1
        )
        for index, entry in enumerate(fresh if good else ()):
            check_alike(entry, value[index], f"{part}, {index}")
    elif isinstance(fresh, bool | str | bytes):
        good = type(value) is type(fresh)
    elif isinstance(fresh, int | float):
        one = isinstance(value, torch.Tensor) and value.numel() == 1
        good = one or type(value) is float or (type(value) is int and abs(value) < 2**63)
    elif isinstance(fresh, torch.Tensor):
        good = isinstance(value, torch.Tensor) and (value.dtype, value.ndim) == (fresh.dtype, fresh.ndim)
    else:
        good = True
    if not good:
        raise CheckpointError(f"its {part} is {value!r:.60}, where a new one has {fresh!r:.60}; {_ADVICE}")
