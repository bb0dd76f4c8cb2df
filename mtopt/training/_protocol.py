"""What the parts of training need of a trainer. They know this much of it, and nothing of its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from mtopt._losses import Absent, Losses
from mtopt.autograd import MatrixFree, PlanName, Private, Store
from mtopt.combiners import Combiner
from mtopt.distributed import Processes
from mtopt.training._precision import Precision


class LossSource(Protocol):
    """The losses of a batch, and what they are computed with."""

    features: torch.Tensor | Sequence[torch.Tensor] | None
    needs_graph: bool
    absent: Absent

    @property
    def model(self) -> torch.nn.Module: ...

    @property
    def processes(self) -> Processes: ...

    @property
    def combiner(self) -> Combiner: ...

    @property
    def precision(self) -> Precision: ...

    def losses(self, batch: Any) -> Losses: ...


class Stepping(LossSource, Protocol):
    """How one step is made of these losses."""

    @property
    def optimizer(self) -> torch.optim.Optimizer: ...

    @property
    def private(self) -> Private | None: ...

    @property
    def strict(self) -> bool: ...

    @property
    def plan(self) -> PlanName | MatrixFree: ...

    @property
    def store(self) -> Store: ...

    @property
    def accumulate(self) -> int: ...

    @property
    def batches_per_step(self) -> int: ...
