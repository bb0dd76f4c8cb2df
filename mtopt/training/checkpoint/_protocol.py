"""What checkpoints need of the trainer that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from mtopt.combiners import Combiner
from mtopt.distributed import Processes


class Stateful(Protocol):
    """What has a state of tensors and plain values."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None: ...


class Records(Stateful, Protocol):
    """The history, as far as its state can be checked."""

    def __getitem__(self, key: str, /) -> npt.NDArray[np.float64]: ...


class Arithmetic(Protocol):
    """The precision that losses are computed in."""

    dtype: torch.dtype | None
    clip_norm: float | None
    scaler: torch.amp.GradScaler | None


class Checkpointed(Stateful, Protocol):
    """A trainer, as far as a checkpoint holds it."""

    step: int

    @property
    def started(self) -> bool: ...

    @property
    def processes(self) -> Processes: ...

    @property
    def model(self) -> torch.nn.Module: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def scheduler(self) -> torch.optim.lr_scheduler.LRScheduler | None: ...

    @property
    def combiner(self) -> Combiner: ...

    @property
    def precision(self) -> Arithmetic: ...

    @property
    def callbacks(self) -> Sequence[Stateful]: ...

    @property
    def history(self) -> Records: ...

    @property
    def made_with(self) -> dict[str, dict[str, str]]: ...

    @property
    def seed(self) -> int | None: ...

    @property
    def accumulate(self) -> int: ...

    @property
    def private(self) -> str | None: ...

    @property
    def absent(self) -> str | None: ...
