"""What a run of unlearning leaves in its folder while it goes on: evaluations, their figures line by line, settings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mtopt
from mtopt.files import read_json_lines, write_text

from .metrics import Evaluation

SHOWN = (
    "model_utility",
    "forget_quality",
    "forget_probability",
    "retain_exact_match",
    "privleak",
    "verbmem_forget",
    "knowmem_forget",
    "knowmem_retain",
)
"""The figures that are printed after an evaluation of TOFU or MUSE."""

_SUMMARY_HINT = "take that line out of the file, or give another --out"


class EvaluateEvery(mtopt.Callback):
    """Evaluates before the first step, every so many steps and after the last, each into a file of its own."""

    def __init__(
        self, out: Path, measure: Callable[[Any], Evaluation], every: int | None, shown: Sequence[str] = SHOWN
    ) -> None:
        self.out, self.measure, self.every, self.shown = out, measure, every, shown
        self._seconds, self._last, self._began = 0.0, -1, time.perf_counter()

    def on_fit_start(self, trainer: mtopt.MultiLossTrainer) -> None:
        self._began = time.perf_counter()
        if trainer.step == 0:
            self._evaluate(trainer)

    def on_step_end(self, trainer: mtopt.MultiLossTrainer, record: mtopt.StepRecord) -> None:
        if self.every is not None and trainer.step % self.every == 0:
            self._evaluate(trainer)

    def finish(self, trainer: mtopt.MultiLossTrainer) -> None:
        """The last evaluation, after ``fit``; not in ``on_fit_end``, which comes after a failure, too."""
        if trainer.step != self._last:
            self._evaluate(trainer)

    def _evaluate(self, trainer: mtopt.MultiLossTrainer) -> None:
        self._seconds += time.perf_counter() - self._began
        record_evaluation(self.out, trainer.step, self._seconds, self.measure(trainer.model), self.shown)
        self._last, self._began = trainer.step, time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._seconds + time.perf_counter() - self._began, "last": self._last}

    def load_state_dict(self, state_dict: Any) -> None:
        self._seconds, self._last = state_dict["seconds"], state_dict["last"]


def record_evaluation(
    out: Path, step: int, seconds: float, evaluation: Evaluation, shown: Sequence[str] = SHOWN
) -> None:
    """Writes an evaluation and its line, and prints the figures of ``shown``."""
    evaluation.save(out / "evaluations" / f"step_{step:06d}.json")
    line = {"step": step, "training_seconds": round(seconds, 2), **evaluation.summary}
    path = out / "summary.jsonl"
    # a run that was killed, or started over, comes to the same step again
    lines = [kept for kept in read_summary(path) if kept["step"] < step]
    write_text(path, "".join(json.dumps(kept) + "\n" for kept in [*lines, line]))
    figures = {name: value for name, value in evaluation.summary.items() if name in shown and value is not None}
    print(f"step {step}: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()), flush=True)


def save_settings(arguments: Mapping[str, Any], out: Path, model: Any) -> None:
    """What a run was asked for, how many weights it trains, and with which versions."""
    weights = {
        "all": sum(param.numel() for param in model.parameters()),
        "trained": sum(param.numel() for param in model.parameters() if param.requires_grad),
    }
    versions = {name: version(name) for name in ("mtopt", "torch", "transformers")}
    content = {"arguments": arguments, "weights": weights, "versions": versions}
    write_text(out / "settings.json", json.dumps(content, indent=1) + "\n")


def read_summary(path: Path) -> list[dict[str, Any]]:
    """The lines of an earlier run in the same folder."""
    lines: list[dict[str, Any]] = []
    for number, line in read_json_lines(path, kind=dict, hint=_SUMMARY_HINT) if path.is_file() else ():
        if not isinstance(line.get("step"), int):
            raise ValueError(f"{path}, line {number}: no step; {_SUMMARY_HINT}")
        lines.append(line)
    return lines
