"""Scalars for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mtopt._counts import check_count
from mtopt._text import visible
from mtopt.autograd import StepRecord
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import Training
from mtopt.training.callbacks._scalars import evaluation_scalars, step_scalars


class TensorBoard(Callback):
    """Writes losses, weights, norms, cosines, conflicts, the learning rate and evaluations for TensorBoard.

    A resumed run tells TensorBoard to forget what a killed one wrote beyond the checkpoint, so no step shows twice.

    Args:
        logdir: the directory of this run.
        every: steps from one that is written to the next; evaluations are written always. Default: 1.

    Raises:
        ImportError: tensorboard is not installed; ``pip install 'mtopt[tensorboard]'``.
        ValueError: ``every`` is not a positive int.
    """

    first_rank_only = True

    def __init__(self, logdir: str | os.PathLike[str], *, every: int = 1) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("TensorBoard needs tensorboard: pip install 'mtopt[tensorboard]'") from error
        self._create: Any = SummaryWriter
        self.logdir = os.fspath(logdir)
        self.every = check_count("every", every) or 1
        self._writer: Any = None

    def on_fit_start(self, trainer: Training) -> None:
        self._writer = self._create(self.logdir, purge_step=trainer.step + 1 if trainer.step else None)

    def on_step_end(self, trainer: Training, record: StepRecord) -> None:
        if trainer.step % self.every == 0:
            self._write(step_scalars(record), trainer.step)

    def on_evaluate(self, trainer: Training, split: str, values: Mapping[str, float]) -> None:
        if self._writer is not None:
            self._write(evaluation_scalars(split, values), trainer.step)

    def on_fit_end(self, trainer: Training) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(visible(name), value, step)
