"""The loop of ``fit``: batch after batch until a limit, with records, hooks and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from mtopt.autograd import Probe, StepRecord
from mtopt.diagnosis import Diagnosis, Watch
from mtopt.training._feed import Feed
from mtopt.training._history import History
from mtopt.training._measure import watch_over, with_measured
from mtopt.training._protocol import Stepping
from mtopt.training.callbacks import Callback
from mtopt.training.checkpoint import CheckpointFolder, plain


class Fitting(Stepping, Protocol):
    """What the loop needs of the trainer that it runs."""

    step: int
    epoch: int
    probe: Probe | None
    measured: Diagnosis | None

    @property
    def stopping(self) -> bool: ...

    @property
    def history(self) -> History: ...

    @property
    def scheduler(self) -> torch.optim.lr_scheduler.LRScheduler | None: ...

    @property
    def callbacks(self) -> Sequence[Callback]: ...

    def training_step(self, batch: Any) -> StepRecord: ...

    def state_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Where training ends: totals from the trainer's first step on, None for no limit."""

    steps: int | None
    epochs: int | None

    def reached(self, trainer: Fitting) -> bool:
        return (self.steps is not None and trainer.step >= self.steps) or (
            self.epochs is not None and trainer.epoch >= self.epochs
        )

    def total(self, trainer: Fitting, consumed: int, length: int | None) -> int | None:
        """The number of steps there will have been, ``consumed`` batches into an epoch of ``length``."""
        totals = [] if self.steps is None else [self.steps]
        if self.epochs is not None and length is not None:
            takes = trainer.batches_per_step
            spare = takes - least_batches(trainer)  # a step that is that many batches short counts all the same
            here, later = (length - consumed + spare) // takes, (length + spare) // takes
            totals.append(trainer.step + here + (self.epochs - trainer.epoch - 1) * later)
        return min(totals, default=None)


def least_batches(trainer: Fitting) -> int:
    """How many batches make a step: all the draws of a rule that takes several; else a single one."""
    return trainer.combiner.draws


@contextmanager
def callbacks_told(trainer: Fitting) -> Iterator[None]:
    """Tells the callbacks of the start and of the end: all that were started, even if one raises."""
    started: list[Callback] = []
    try:
        for callback in trainer.callbacks:
            started.append(callback)
            callback.on_fit_start(trainer)
        yield
    finally:
        with ExitStack() as stack:
            for callback in reversed(started):
                stack.callback(callback.on_fit_end, trainer)


def train(trainer: Fitting, feed: Feed, limits: Limits, folder: CheckpointFolder | None, every: int | None) -> None:
    """Step until a limit is reached or the trainer is asked to stop; checkpoints as ``fit`` says."""
    if folder is not None:
        plain(trainer.state_dict(), "state_dict()")  # what cannot be saved is better known now than in an hour
    written = trainer.step, trainer.epoch
    watch = watch_over(trainer)
    watch.skipped = skipped_last(trainer.history)
    while not limits.reached(trainer) and not trainer.stopping:
        batches = feed.take(trainer.batches_per_step, least=least_batches(trainer))
        if batches:
            _one_step(trainer, batches, feed, watch)
        epoch_ends = not batches or feed.at_end(least_batches(trainer))
        if epoch_ends:
            feed.close_epoch()
            trainer.epoch = feed.epoch
            for callback in trainer.callbacks:
                callback.on_epoch_end(trainer)
        due = epoch_ends if every is None else trainer.step % every == 0
        if folder is not None and due and written != (trainer.step, trainer.epoch):
            folder.write(trainer.step, trainer.state_dict())
            written = trainer.step, trainer.epoch
    if folder is not None and written != (trainer.step, trainer.epoch):
        folder.write(trainer.step, trainer.state_dict())


def _one_step(trainer: Fitting, batches: list[Any], feed: Feed, watch: Watch) -> None:
    trainer.probe = trainer.measured = None
    record = trainer.training_step(batches if trainer.batches_per_step > 1 else batches[0])
    rate = trainer.optimizer.param_groups[0].get("lr")  # of the step just made, which GeN may have chosen in it
    if trainer.scheduler is not None and not record.skipped:
        trainer.scheduler.step()
    trainer.step += 1
    record = replace(
        with_measured(record, trainer.measured),
        step=trainer.step,
        epoch=None if feed.data is None else feed.epoch + 1,
        learning_rate=None if rate is None else float(rate),
        probe=trainer.probe,
    )
    trainer.history.append(record)
    watch.see(record, stacklevel=5)
    for callback in trainer.callbacks:
        callback.on_step_end(trainer, record)


def skipped_last(history: History) -> int:
    """How many steps at the end of a history were skipped in a row."""
    done = np.flatnonzero(history["skipped"] == 0)
    return len(history) - (int(done[-1]) + 1 if len(done) else 0)
