"""A step's record as named numbers, for logs that know nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mtopt._text import joined
from mtopt.autograd import StepRecord
from mtopt.training._history import History

_SECTIONS = ("losses", "weights", "norms", "cosines")
_QUOTED = re.compile(r"[/'\"]")
_TAKEN = re.compile(rf"({'|'.join(_SECTIONS)})( \(split\))*")


def step_scalars(record: StepRecord) -> dict[str, float]:
    """``learning_rate``, ``skipped``, ``conflicts``, and ``losses/NAME``, ``weights/NAME``, ``norms/NAME``, and
    ``cosines/NAME,NAME`` of each pair, up to as many objectives as a history keeps them for; what the step has.
    """
    scalars: dict[str, float] = {"skipped": float(record.skipped)}
    if record.learning_rate is not None:
        scalars["learning_rate"] = record.learning_rate
    if record.conflicts is not None:
        scalars["conflicts"] = float(record.conflicts)
    for section in _SECTIONS[:3]:
        for name, value in (getattr(record, section) or {}).items():
            scalars[f"{section}/{name}"] = value
    scalars.update({f"cosines/{joined(pair, ',')}": value for pair, value in cosines(record).items()})
    return scalars


def cosines(record: StepRecord) -> dict[tuple[str, str], float]:
    """The cosine of each pair of gradients; none where the step has none, or too many objectives."""
    names = list(record.norms or record.losses)
    if record.cosines is None or len(names) != len(record.cosines) or len(names) > History.MOST_COSINES:
        return {}
    return {
        (names[i], names[j]): float(record.cosines[i, j]) for i in range(len(names)) for j in range(i + 1, len(names))
    }


def evaluation_scalars(split: str, values: Mapping[str, float]) -> dict[str, float]:
    """``SPLIT/METRIC``; ``losses (split)/METRIC`` where the split has the name of a section of the steps' numbers.

    A metric with a slash or a quote in its name is quoted, so that no split and metric have the name of other ones.
    """
    first, slash, rest = split.partition("/")
    place = f"{first} (split){slash}{rest}" if _TAKEN.fullmatch(first) else split
    return {f"{place}/{repr(name) if _QUOTED.search(name) else name}": float(v) for name, v in values.items()}
