"""The loop of ``fit``: batch after batch until a limit, with records, hooks and checkpoints."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from mtopt.autograd import Probe, StepRecord
from mtopt.diagnosis import Diagnosis, Watch
from mtopt.distributed import Processes
from mtopt.training._feed import Feed
from mtopt.training._history import History
from mtopt.training._measure import watch_over, with_measured
from mtopt.training._protocol import Stepping
from mtopt.training._ranks import share_buffers
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
    def callbacks_here(self) -> Sequence[Callback]: ...

    @property
    def shares_buffers(self) -> bool: ...

    def stop(self) -> None: ...

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
        for callback in trainer.callbacks_here:
            started.append(callback)
            callback.on_fit_start(trainer)
        yield
    finally:
        with ExitStack() as stack:
            for callback in reversed(started):
                stack.callback(callback.on_fit_end, trainer)


def train(trainer: Fitting, feed: Feed, limits: Limits, folder: CheckpointFolder | None, every: int | None) -> None:
    """Step until a limit is reached or the trainer is asked to stop; checkpoints as ``fit`` says.

    Of several ranks all stop after the same step, whichever was asked to, and end an epoch where one has no batch left.
    """
    processes = trainer.processes
    if folder is not None:
        plain(trainer.state_dict(), "state_dict()")  # what cannot be saved is better known now than in an hour
    written = trainer.step, trainer.epoch
    watch = watch_over(trainer)
    watch.skipped = skipped_last(trainer.history)
    stops = processes.meet(trainer.stopping)
    while not stops and not limits.reached(trainer):
        batches = _draw(trainer, feed, processes)
        if batches:
            share_buffers(trainer)
            _one_step(trainer, batches, feed, watch)
        at_end = not batches or feed.at_end(least_batches(trainer))
        epoch_ends, stops = (count > 0 for count in processes.count([at_end, trainer.stopping]))
        if epoch_ends:
            if not at_end:
                _warn_of_more(processes.rank)
            feed.close_epoch()
            trainer.epoch = feed.epoch
            for callback in trainer.callbacks_here:
                callback.on_epoch_end(trainer)
            stops = processes.meet(trainer.stopping)
        due = epoch_ends if every is None else trainer.step % every == 0
        if folder is not None and due and written != (trainer.step, trainer.epoch):
            folder.write(trainer.step, trainer.state_dict())
            written = trainer.step, trainer.epoch
    if folder is not None and written != (trainer.step, trainer.epoch):
        folder.write(trainer.step, trainer.state_dict())
    if stops:
        trainer.stop()  # which another rank was asked to


def _draw(trainer: Fitting, feed: Feed, processes: Processes) -> list[Any]:
    """The batches of the next step, as many on all ranks; none where the epoch is over on one of them."""
    least = least_batches(trainer)
    batches = feed.take(trainer.batches_per_step, least=least, rule=trainer.combiner)
    if not processes.several:
        return batches
    holders = processes.count([n < len(batches) for n in range(trainer.batches_per_step)])
    common = holders.count(processes.size)
    if common < len(batches):
        _warn_of_more(processes.rank)
    return batches[:common] if common >= least else []


def _warn_of_more(rank: int) -> None:
    warnings.warn(
        f"data has more batches in an epoch on rank {rank} than on another: what is left is passed over; "
        "a torch.utils.data.DistributedSampler gives all ranks as many",
        stacklevel=5,
    )


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
    if trainer.processes.rank == 0:
        watch.see(record, stacklevel=6)
    for callback in trainer.callbacks_here:
        callback.on_step_end(trainer, record)


def skipped_last(history: History) -> int:
    """How many steps at the end of a history were skipped in a row."""
    done = np.flatnonzero(history["skipped"] == 0)
    return len(history) - (int(done[-1]) + 1 if len(done) else 0)
