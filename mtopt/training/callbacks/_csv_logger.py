"""The history as a CSV file that grows while training runs."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from mtopt._text import csv_text
from mtopt.autograd import StepRecord
from mtopt.files import write_text
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import Training
from mtopt.training.callbacks._scalars import evaluation_scalars, step_scalars

Row = dict[str, Any]


class CSVLogger(Callback):
    """Writes one row per step: ``step``, ``epoch``, ``learning_rate``, ``losses/NAME``, ..., and ``SPLIT/METRIC`` of
    the evaluations made after that step. A cell is empty where a step does not have the value.

    The file is made anew from the trainer's history when ``fit`` starts, so a resumed run has each step once, whatever
    was written before it was killed; then rows are added. A row is written when the next step comes, with all
    that was evaluated in between. A column that appears later (a loss that was absent so far) makes the file anew, too.

    Args:
        path: the file; its directory is made if need be.
    """

    first_rank_only = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._columns: list[str] = []
        self._pending: Row | None = None
        self._evaluated: Row = {}  # after the step of the pending row, or of the one to come: callbacks have an order
        self._evaluated_at = -1
        self._file: TextIO | None = None

    def on_fit_start(self, trainer: Training) -> None:
        self._columns, self._evaluated_at = ["step", "epoch"], -1
        self._rewrite(trainer)

    def on_step_end(self, trainer: Training, record: StepRecord) -> None:
        self._write_pending(trainer)
        self._pending = _row(record)

    def on_evaluate(self, trainer: Training, split: str, values: Mapping[str, float]) -> None:
        if trainer.step != self._evaluated_at:
            if self._pending is not None and self._pending["step"] != trainer.step:
                self._write_pending(trainer)
            self._evaluated, self._evaluated_at = {}, trainer.step
        self._evaluated.update(evaluation_scalars(split, values))

    def on_fit_end(self, trainer: Training) -> None:
        if self._file is None:
            return
        self._write_pending(trainer)
        self._file.close()
        self._file = None

    def _write_pending(self, trainer: Training) -> None:
        row, self._pending = self._pending, None
        if row is None or self._file is None:
            return
        if row["step"] == self._evaluated_at:
            row.update(self._evaluated)
        if not set(row) <= set(self._columns):
            self._rewrite(trainer, until=row["step"])
        else:
            csv.DictWriter(self._file, self._columns).writerow(row)
            self._file.flush()

    def _rewrite(self, trainer: Training, until: int | None = None) -> None:
        """The whole file, up to a step; what stood at its path is replaced in one go."""
        rows = {row["step"]: row for row in map(_row, trainer.history) if until is None or row["step"] <= until}
        for split in trainer.history.splits:
            for step, values in trainer.history.evaluated(split):
                if step in rows:
                    rows[step].update(evaluation_scalars(split, values))
        for row in rows.values():
            self._columns += [name for name in row if name not in self._columns]
        if self._file is not None:
            self._file.close()
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writerow({name: csv_text(name) for name in self._columns})
        writer.writerows(rows.values())
        write_text(self.path, text.getvalue())
        self._file = open(self.path, "a", newline="", encoding="utf-8")  # noqa: SIM115 - open as long as fit runs


def _row(record: StepRecord) -> Row:
    return {"step": record.step, "epoch": record.epoch, **step_scalars(record)}
