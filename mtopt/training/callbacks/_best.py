"""The checkpoint of the best evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtopt._content import check_number, check_whole
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import Training
from mtopt.training.callbacks._watched import Mode, Watched


class BestCheckpoint(Callback):
    """Keeps the trainer as it was at the best evaluation of a split, in one file.

    ::

        best = mtopt.training.BestCheckpoint("validation", "accuracy", mode="max")
        trainer = TwoDigits(model, optimizer, "mgda", callbacks=[mtopt.Evaluator(validation), best])
        trainer.fit(loader, epochs=10, checkpoint_dir="run")
        trainer.load(best.path)  # run/best.pt

    The file is written as a checkpoint is, atomically and with a checksum, and only when the metric is better than ever
    before: on equal values the first stays. Select on a split that is neither trained nor reported on.

    Args:
        split: the name that is evaluated, such as an :class:`Evaluator`'s.
        metric: one of the evaluation's values: a loss, or what the trainer's ``metrics`` gives.
        mode: which values are better, ``"min"`` (default) or ``"max"``.
        path: the file. Default: ``best.pt`` in the ``checkpoint_dir`` of ``fit``.

    Attributes:
        best: the best value; None before the first evaluation, or when all were NaN.
        step: the step after which it was found.

    Raises:
        ValueError: another mode; no path, and ``fit`` writes no checkpoints.
        UnknownNameError: an evaluation of ``split`` has no such metric.
    """

    def __init__(
        self, split: str, metric: str, mode: Mode = "min", *, path: str | os.PathLike[str] | None = None
    ) -> None:
        self.watched = Watched(split, metric, mode)
        self.path = None if path is None else Path(path)
        self.best: float | None = None
        self.step: int | None = None

    def on_fit_start(self, trainer: Training) -> None:
        if self.path is None:
            if trainer.checkpoint_dir is None:
                raise ValueError("BestCheckpoint has nowhere to write: give it path=, or fit a checkpoint_dir")
            self.path = trainer.checkpoint_dir / "best.pt"

    def on_evaluate(self, trainer: Training, split: str, values: Mapping[str, float]) -> None:
        value = self.watched.value(split, values)
        if value is None or self.path is None or not self.watched.improves(value, self.best):
            return
        self.best, self.step = value, trainer.step
        trainer.save(self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "step": self.step}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.best = check_number(state_dict["best"], "best value")
        self.step = None if state_dict["step"] is None else check_whole(state_dict["step"], "best step")
