"""What callbacks need of the trainer that calls them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import torch

from mtopt.diagnosis import Diagnosis
from mtopt.distributed import Processes
from mtopt.training._history import History
from mtopt.training._protocol import Stepping


class Training(Protocol):
    """A training that is under way: how far it is, what it has recorded, and what may be asked of it."""

    @property
    def model(self) -> torch.nn.Module: ...

    @property
    def processes(self) -> Processes: ...

    @property
    def step(self) -> int: ...

    @property
    def total_steps(self) -> int | None: ...

    @property
    def history(self) -> History: ...

    @property
    def checkpoint_dir(self) -> Path | None: ...

    def stop(self) -> None: ...

    def save(self, path: str | os.PathLike[str]) -> None: ...

    def measure(self, batch: Any) -> Diagnosis | None: ...

    def evaluate(self, data: Iterable[Any] | None = None, *, split: str | None = None) -> dict[str, float]: ...


class SteppingTraining(Training, Stepping, Protocol):
    """One whose step's losses may be run again."""
