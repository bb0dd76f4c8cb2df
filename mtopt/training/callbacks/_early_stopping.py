"""Stopping when a metric has ceased to get better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtopt._content import check_number, check_whole
from mtopt._counts import check_count
from mtopt.training.callbacks._base import Callback
from mtopt.training.callbacks._protocol import Training
from mtopt.training.callbacks._watched import Mode, Watched


class EarlyStopping(Callback):
    """Stops training after ``patience`` evaluations in a row that were not better than the best before them.

    Better means by more than ``min_delta``; an evaluation that is NaN is not. A run that stopped so stays stopped: the
    same ``fit`` again trains nothing more, but one with more patience goes on.

    Args:
        split: the name that is evaluated, such as an :class:`Evaluator`'s.
        metric: one of the evaluation's values.
        mode: which values are better, ``"min"`` (default) or ``"max"``.
        patience: evaluations without progress after which training ends. Default: 5.
        min_delta: the least progress that counts, in the metric's unit, >= 0. Default: 0.

    Attributes:
        best: the value that the next one is compared with; None before the first evaluation.
        waited: evaluations since then.

    Raises:
        ValueError: a wrong argument.
        UnknownNameError: an evaluation of ``split`` has no such metric.
    """

    def __init__(
        self, split: str, metric: str, mode: Mode = "min", *, patience: int = 5, min_delta: float = 0.0
    ) -> None:
        self.watched = Watched(split, metric, mode)
        if check_count("patience", patience) is None:
            raise ValueError("patience must be a positive int, found None")
        if not min_delta >= 0:
            raise ValueError(f"min_delta must be non-negative, found {min_delta!r}")
        self.patience, self.min_delta = patience, min_delta
        self.best: float | None = None
        self.waited = 0

    def on_fit_start(self, trainer: Training) -> None:
        self._stop_if_due(trainer)

    def on_evaluate(self, trainer: Training, split: str, values: Mapping[str, float]) -> None:
        value = self.watched.value(split, values)
        if value is None:
            return
        if self.watched.improves(value, self.best, by=self.min_delta):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        self._stop_if_due(trainer)

    def _stop_if_due(self, trainer: Training) -> None:
        if self.waited >= self.patience:
            trainer.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.best = check_number(state_dict["best"], "best value")
        self.waited = check_whole(state_dict["waited"], "count of evaluations without progress")
