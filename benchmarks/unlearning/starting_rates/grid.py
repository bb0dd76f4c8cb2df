"""The cases of the study in the order in which they are run, and their rows on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import joblib
import numpy as np
import torch

from mtopt.files import read_json, write_text

from .training import OPTIMIZERS, STEPS, Case, Row, unlearn
from .worlds import EPOCHS, open_start

RATES = {
    name: tuple(float(f"{rate:.2g}") for rate in np.geomspace(low, 1e4 * low, 8))
    for name, low in (("sgd", 1e-3), ("adamw", 1e-5))
}
"""The eight starting rates over four decades, for all methods alike. AdamW's steps are a hundred times longer: it moves
each of the weights by about the rate, and NGDiff's direction has a norm of at most two over all of them."""

METHODS = (
    *("GDiff(0.5)", "GDiff(0.9)", "NPO+NLL", "NGDiff", "NGDiff+GeN", "NGDiff+GeN(fresh)"),
    *("NGDiff+GeN(smoothed)", "NGDiff+GeN(fresh, smoothed)"),
)
"""Who takes part by default; any name of :data:`mtopt_suites.unlearning.methods.METHODS` may."""

SEEDS = 5
_HINT = "delete it, and its run is made again"


@dataclass(frozen=True)
class Grid:
    """Every method from every rate, in both worlds, with both optimizers.

    Args:
        methods: their names.
        seeds: as many, from 0 on.
        steps: of each run.
    """

    methods: Sequence[str] = METHODS
    seeds: int = SEEDS
    steps: int = STEPS

    def cases(self) -> Iterator[Case]:
        """Seed after seed, so that a study that is stopped early has some that are complete."""
        for seed in range(self.seeds):
            for world in EPOCHS:
                for optimizer in OPTIMIZERS:
                    for method in self.methods:
                        for rate in RATES[optimizer]:
                            yield Case(world, optimizer, method, rate, seed)


class Rows:
    """The rows of a study, each a file of its own, written whole when its run has ended.

    Args:
        folder: of the study; made where there is none.
        steps: of each run.

    Raises:
        ValueError: the folder holds runs of another number of steps.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        settings = folder / "settings.json"
        if not settings.is_file():
            write_text(settings, json.dumps({"steps": steps}) + "\n")
        found = read_json(settings, kind=dict, hint="give another folder").get("steps")
        if found != steps:
            raise ValueError(f"{folder} holds runs of {found} steps, and {steps} were asked for; give another folder")

    def read(self, case: Case) -> Row | None:
        """The row of a case; None where it was not run yet."""
        path = self._path(case)
        if not path.is_file():
            return None
        content = read_json(path, kind=dict, hint=_HINT)
        if content.pop("case", None) != asdict(case) or content.keys() != Row.__dataclass_fields__.keys() - {"case"}:
            raise ValueError(f"{path} holds no row of {case}; {_HINT}")
        return Row(case, **content)

    def write(self, row: Row) -> None:
        write_text(self._path(row.case), json.dumps(asdict(row), allow_nan=False) + "\n")

    def _path(self, case: Case) -> Path:
        name = f"{case.method}, {case.rate:g}.json"
        return self.folder / "rows" / f"seed {case.seed}" / f"{case.world}, {case.optimizer}" / name


def run_missing(grid: Grid, rows: Rows, *, jobs: int = 1, cache_dir: Path | None = None) -> None:
    """Run what has no row yet, seed after seed; each row is on disk as soon as its run has ended."""
    for seed in range(grid.seeds):
        missing = [case for case in grid.cases() if case.seed == seed and rows.read(case) is None]
        if not missing:
            continue
        for world in EPOCHS:
            open_start(world, seed, cache_dir)  # once, before the processes that share it
        done = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(
            joblib.delayed(_run_and_write)(case, rows, cache_dir) for case in missing
        )
        for number, _ in enumerate(done, start=1):
            if number % 20 == 0 or number == len(missing):
                print(f"seed {seed}: {number} of {len(missing)} runs", flush=True)


def finished(grid: Grid, rows: Rows) -> tuple[list[Row], list[int]]:
    """The rows of the seeds that are complete, and these seeds."""
    by_seed: dict[int, list[Row | None]] = {}
    for case in grid.cases():
        by_seed.setdefault(case.seed, []).append(rows.read(case))
    complete = [seed for seed, found in by_seed.items() if None not in found]
    return [row for seed in complete for row in by_seed[seed] if row is not None], complete


def _run_and_write(case: Case, rows: Rows, cache_dir: Path | None) -> None:
    torch.set_num_threads(1)
    rows.write(unlearn(case, steps=rows.steps, cache_dir=cache_dir))
