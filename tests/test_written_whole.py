"""Nothing in mtopt and its suites rewrites a file in place, or reads JSON whose fault would name no file."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

import benchmarks
import mtopt
from benchmarks.speed import _report, _step_report
from benchmarks.unlearning import _cache
from benchmarks.unlearning._recording import record_evaluation, save_settings
from benchmarks.unlearning.corpus import Corpus
from benchmarks.unlearning.files import write_muse, write_tofu
from benchmarks.unlearning.metrics import Evaluation
from mtopt.training import CSVLogger, write_checkpoint
from tests.training.support import point

ROWS = [{"question": "a", "answer": "b"}]


def evaluation(folder: Path) -> None:
    Evaluation({"model_utility": 0.5}, {}, {}).save(folder / "file.json")


def figure(folder: Path) -> None:
    mtopt.plotting.save(Figure(), folder / "file", formats=("svg",))


def log(folder: Path) -> None:
    point(callbacks=[CSVLogger(folder / "log.csv")]).fit(steps=1)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "a checkpoint": lambda folder: write_checkpoint(folder / "c.pt", {}),
    "an evaluation": evaluation,
    "a line of a summary": lambda folder: record_evaluation(folder, 0, 0.0, Evaluation({}, {}, {})),
    "settings": lambda folder: save_settings({"seed": 0}, folder, torch.nn.Linear(1, 1)),
    "TOFU's sets": lambda folder: write_tofu(folder, Corpus({"full": ROWS})),
    "MUSE's sets": lambda folder: write_muse(folder, Corpus({"knowmem/forget_qa": ROWS})),
    "a figure": figure,
    "a log of steps": log,
    "times of weights": lambda folder: _report.write_json(folder / "w.json", [], {}),
    "times of steps": lambda folder: _step_report.write_json(folder / "s.json", [], {}, {}),
    "a table of times": lambda folder: _report.write_markdown(folder / "w.md", []),
    "a cached model": lambda folder: _cache.write(folder / "entry", torch.nn.Linear(1, 1), {}),
}


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    WRITERS[name](tmp_path / "new")
    written = contents(tmp_path / "new")
    assert written
    for path in written:
        path.write_text("old")
    monkeypatch.setattr(os, "fsync", full_disk)
    for folder in ("new", "empty"):
        with pytest.raises((OSError, ValueError)):  # half a line of a summary is said first
            WRITERS[name](tmp_path / folder)
    assert contents(tmp_path) == dict.fromkeys(written, b"old")


# -- everywhere -------------------------------------------------------------------------------------------------

HELPER = "mtopt/files.py"
WITH_A_REASON = {
    (HELPER, "open"): "the helper",
    (HELPER, "loads"): "the helper",
    ("mtopt/locks.py", "open"): "a lock is held by an open file",
    ("mtopt/training/callbacks/_csv_logger.py", "open"): "rows are added to a file that was written whole",
}


def calls(path: Path) -> set[str]:
    """The calls in a source file that write to a path by themselves, or read JSON."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        of = (
            node.func.value.id if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) else ""
        )
        modes = [a.value for a in (*node.args, *(k.value for k in node.keywords)) if isinstance(a, ast.Constant)]
        if (
            (name in ("write_text", "write_bytes") and isinstance(node.func, ast.Attribute))
            or (name == "open" and of != "os" and any(str(mode)[:1] in ("w", "a", "x") for mode in modes))
            or (of == "json" and name in ("load", "loads", "dump"))
        ):
            found.add(name)
    return found


def test_nothing_else_writes_to_a_path_or_reads_json() -> None:
    roots = [Path(mtopt.__file__).parent, Path(next(iter(benchmarks.__path__)))]
    found = {
        (f"{root.name}/{path.relative_to(root).as_posix()}", call)
        for root in roots
        for path in root.rglob("*.py")
        for call in calls(path)
    }
    assert (HELPER, "open") in found
    assert found == set(WITH_A_REASON), "use mtopt.files"
