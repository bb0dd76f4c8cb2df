"""What the losses, the weights and the gradients do, live on the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtopt._counts import check_count
from mtopt._text import joined, terminal_text, visible
from mtopt.autograd import StepRecord
from mtopt.diagnosis import Diagnosis
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import Training
from mtopt.training.callbacks._scalars import cosines

_RECENT = 100  # steps over which conflicts are counted
_MOST_COSINES = 6  # columns


class Monitor(Callback):
    """Shows, live, each objective's loss, weight, gradient norm and cosines, and below the step, the learning rate, how
    often gradients conflicted in the last 100 steps, skipped steps and the last evaluations.

    On a terminal (standard error) and in a notebook it is a table that renews itself; elsewhere, such as in a log file,
    a plain line now and then. Use it in place of a :class:`ProgressBar`, not beside it.

    With ``every=50`` the gradients are diagnosed in each fiftieth step, under any rule, one that needs the losses alone
    included: norms and cosines go to that step's record, and what was found last stands below the table.

    Args:
        every: steps from one that is measured to the next (:meth:`MultiLossTrainer.measure`). Default: none is.
        refresh: seconds from one table to the next. Default: 0.25.
        lines: seconds from one plain line to the next; the first and the last step have one always. Default: 30.

    Raises:
        ValueError: a negative time, or ``every`` is not a positive int.

    Attributes:
        diagnosis: the last one; None before the first.
    """

    def __init__(self, *, every: int | None = None, refresh: float = 0.25, lines: float = 30.0) -> None:
        if not (refresh >= 0 and lines >= 0):
            raise ValueError(f"refresh and lines must be non-negative seconds, found {refresh!r} and {lines!r}")
        self.every = check_count("every", every)
        self.refresh, self.lines = refresh, lines
        self.diagnosis: Diagnosis | None = None
        self._diagnosed = 0
        self._live: Any = None
        self._silent = False
        self._due = 0.0
        self._shown = 0
        self._evaluations: dict[str, Mapping[str, float]] = {}

    def on_fit_start(self, trainer: Training) -> None:
        from rich.console import Console  # an import of its own, which other programs do not need to start quickly
        from rich.live import Live

        self._silent = trainer.processes.rank > 0  # which takes part in the measuring, and shows nothing
        if self._silent:
            return
        self._due, self._shown = 0.0, trainer.step
        console = Console(stderr=True)
        if console.is_terminal or console.is_jupyter:
            self._live = Live(console=console, auto_refresh=False)
            self._live.start()

    def on_gradients(self, trainer: Training, batch: Any, record: StepRecord) -> None:
        if self.every is not None and (trainer.step + 1) % self.every == 0:
            self.diagnosis = trainer.measure(batch) or self.diagnosis
            self._diagnosed = trainer.step + 1

    def on_step_end(self, trainer: Training, record: StepRecord) -> None:
        # a picture of each of thousands of steps a second would slow them down
        if time.monotonic() >= self._due:
            self._show(trainer, record)

    def on_evaluate(self, trainer: Training, split: str, values: Mapping[str, float]) -> None:
        self._evaluations[split] = dict(values)

    def on_fit_end(self, trainer: Training) -> None:
        if len(trainer.history) and (self._live is not None or self._shown < trainer.step):
            self._show(trainer, trainer.history[-1])
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _show(self, trainer: Training, record: StepRecord) -> None:
        if self._silent:
            return
        self._shown = trainer.step
        self._due = time.monotonic() + (self.lines if self._live is None else self.refresh)
        told = [*_evaluated(self._evaluations), *self._found()]
        if self._live is None:
            print(_line(trainer, record, told), file=sys.stderr, flush=True)
        else:
            self._live.update(_table(trainer, record, told), refresh=True)

    def _found(self) -> list[str]:
        if self.diagnosis is None:
            return []
        return [f"step {self._diagnosed}: {self.diagnosis.verdict().splitlines()[0]}"]


def _table(trainer: Training, record: StepRecord, told: Sequence[str]) -> Any:
    from rich.table import Table
    from rich.text import Text

    names = list(record.losses)
    others = names[:_MOST_COSINES] if cosines(record) else []
    table = Table(title=_where(trainer, record), title_justify="left", caption_justify="left")
    table.add_column("objective")
    for column in ("loss", "weight", "gradient norm", *(f"cos {other}" for other in others)):
        table.add_column(terminal_text(column), justify="right")
    between = cosines(record)
    for name in names:
        angles = [between.get((name, other), between.get((other, name))) for other in others]
        numbers = [record.losses[name], (record.weights or {}).get(name), (record.norms or {}).get(name)]
        cells = [Text(_number(number)) for number in numbers]
        cells += [Text(_cosine(angle), style="red" if angle is not None and angle < 0 else "") for angle in angles]
        table.add_row(terminal_text(name), *cells)
    table.caption = terminal_text("\n".join([*_rates(trainer, record), *told]))
    return table


def _line(trainer: Training, record: StepRecord, told: Sequence[str]) -> str:
    parts = [_where(trainer, record), f"losses {_named(record.losses)}"]
    if record.weights:
        parts.append(f"weights {_named(record.weights)}")
    between = cosines(record)
    if between:
        angles = (f"{visible(joined(pair, ','))} {_cosine(value)}" for pair, value in between.items())
        parts.append("cosines " + " ".join(angles))
    return "; ".join([*parts, *_rates(trainer, record), *told])


def _where(trainer: Training, record: StepRecord) -> str:
    step = f"step {trainer.step}" + ("" if trainer.total_steps is None else f"/{trainer.total_steps}")
    return step if record.epoch is None else f"{step}, epoch {record.epoch}"


def _rates(trainer: Training, record: StepRecord) -> list[str]:
    found = []
    if record.learning_rate is not None:
        found.append(f"learning rate {_number(record.learning_rate)}")
    recent = trainer.history.conflicts[-_RECENT:]
    recent = recent[~np.isnan(recent)]
    if len(recent):
        found.append(f"gradients in conflict in {np.mean(recent > 0):.0%} of the last {len(recent)} steps")
    if trainer.history.skipped:
        found.append(f"{trainer.history.skipped} steps skipped")
    return found


def _evaluated(evaluations: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [f"{visible(split)}: {_named(values)}" for split, values in evaluations.items()]


def _named(values: Mapping[str, float]) -> str:
    return " ".join(f"{visible(name)} {_number(value)}" for name, value in values.items())


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cosine(value: float | None) -> str:
    return "" if value is None else f"{value:+.2f}"
