"""What an evaluation leaves behind: the figures, and every item they were made of."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mtopt.files import read_json, write_text

Items = Mapping[str, list[dict[str, Any]]]
"""By set, one dictionary an item: its texts and what was measured on it."""


@dataclass(frozen=True)
class Evaluation:
    """A summary and the items behind it; everything in it is plain JSON.

    Args:
        summary: Figures by name; None where one could not be had, as the forget quality without a retain model's logs.
        items: By set, a dictionary an item. They are all that another model's evaluation needs as its ``retain_logs``.
        settings: What they were measured with.
    """

    summary: dict[str, float | None]
    items: Items
    settings: dict[str, Any]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes it as JSON and returns where."""
        return write_text(path, json.dumps(asdict(self), ensure_ascii=False, allow_nan=False))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Evaluation:
        """What :meth:`save` wrote."""
        record = read_json(path, kind=dict, hint="delete it, and have the evaluation made again")
        if set(record) != {"summary", "items", "settings"} or not all(isinstance(v, dict) for v in record.values()):
            raise ValueError(f"{path} is no saved evaluation: summary, items and settings were expected at its top")
        return cls(**record)


Logs = Evaluation | str | os.PathLike[str]
"""Another model's evaluation, or where it is saved."""


def opened(logs: Logs) -> Evaluation:
    """The evaluation itself."""
    return logs if isinstance(logs, Evaluation) else Evaluation.load(logs)


def same_items(mine: Items, others: Items, name: str, key: str) -> None:
    """Refuses another model's logs of other items: what is compared would not be the models.

    Args:
        mine, others: Of the two models.
        name: The set.
        key: The column that tells items apart.
    """
    if [item[key] for item in mine[name]] != [item[key] for item in others.get(name, [])]:
        raise ValueError(
            f"the logs given hold {len(others.get(name, []))} items in {name!r} which are not the {len(mine[name])} "
            "evaluated here; evaluate the other model on the same sets"
        )
