"""A progress bar on the terminal."""

from __future__ import annotations

import time
from typing import Any

from mtopt._text import visible
from mtopt.autograd import StepRecord
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import Training

_REFRESH = 0.1  # seconds
_MOST_LOSSES = 6


class ProgressBar(Callback):
    """Shows step, epoch, losses, skipped steps and the time left, on standard error.

    Args:
        force: show it even where standard error is no terminal, such as a log file. Default: False, it is silent
            there, though not in a notebook.
    """

    first_rank_only = True

    def __init__(self, *, force: bool = False) -> None:
        self.force = force
        self._progress: Any = None
        self._task: Any = None
        self._due = 0.0

    def on_fit_start(self, trainer: Training) -> None:
        from rich.console import Console  # an import of its own, which a silent run does not need to start quickly
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        console = Console(stderr=True, force_terminal=True if self.force else None)
        if not (console.is_terminal or console.is_jupyter):
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            # the losses take the rest of the line, and nothing else is cut
            TextColumn("{task.fields[losses]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            console=console,
            expand=True,
        )
        self._task = self._progress.add_task("training", total=trainer.total_steps, completed=trainer.step, losses="")
        self._due = 0.0
        self._progress.start()

    def on_step_end(self, trainer: Training, record: StepRecord) -> None:
        # a bar that follows each of thousands of steps a second would slow them down
        if self._progress is not None and time.monotonic() >= self._due:
            self._show(trainer, record)

    def on_fit_end(self, trainer: Training) -> None:
        if self._progress is None:
            return
        if len(trainer.history):
            self._show(trainer, trainer.history[-1])
        self._progress.stop()
        self._progress = None

    def _show(self, trainer: Training, record: StepRecord) -> None:
        self._due = time.monotonic() + _REFRESH
        shown = [f"{visible(name)} {value:.4g}" for name, value in list(record.losses.items())[:_MOST_LOSSES]]
        if len(record.losses) > _MOST_LOSSES:
            shown.append(f"and {len(record.losses) - _MOST_LOSSES} more")
        if trainer.history.skipped:
            shown.append(f"({trainer.history.skipped} skipped)")
        description = "training" if record.epoch is None else f"epoch {record.epoch}"
        self._progress.update(self._task, completed=trainer.step, description=description, losses="  ".join(shown))
