"""What a comparison found: read from the store alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mtopt._errors import StoreError, unknown_name
from mtopt.experiments._baseline import BASELINE
from mtopt.experiments._consistent import check_alike, check_result
from mtopt.experiments._failure import Failure, read_failure
from mtopt.experiments._plan import TUNING_SEED
from mtopt.experiments._store import ResultStore
from mtopt.experiments.statistics import Estimate, Ranking, Verdict, estimate, judge, rank


@dataclass(frozen=True, slots=True)
class Cell:
    """One rule on one task: its runs and what follows from them.

    Attributes:
        runs: rows of the seeds, ``row["result"]`` as :func:`execute` made it.
        front: rows of static scalarization at spread preferences (for the baseline alone).
        chosen: the tuning run whose configuration was chosen.
        failures: the runs without a result, those of tuning too.
        options: what the contestant fixes beside the rule.
        seeds: how many runs there should be.
        swept: how many of the baseline's configurations are static weights that it tried beside the trials.
        static: it is static scalarization with weights of its own, not chosen as those of the baseline are.
    """

    suite: str
    task: Mapping[str, Any]
    combiner: str
    runs: tuple[Mapping[str, Any], ...]
    front: tuple[Mapping[str, Any], ...]
    chosen: Mapping[str, Any] | None
    tuned: int
    failures: tuple[Failure, ...]
    options: Mapping[str, Any]
    seeds: int = 0
    swept: int = 0
    static: bool = False

    @property
    def errors(self) -> tuple[str, ...]:
        """What the failures said, once each; a rule that refused some of the trials alone has been tuned."""
        told = [f for f in self.failures if f.by == "code" or f.seed != TUNING_SEED or not self.runs]
        return tuple(sorted({f"{f.kind}: {f.message}" for f in told}))

    @property
    def diverged(self) -> tuple[int, ...]:
        """The seeds of the runs that have no finite point to offer."""
        return tuple(run["seed"] for run in self.runs if math.isnan(self.score_of(run)))

    @property
    def failed(self) -> int:
        """How many runs have no score: those without a result, and those that diverged."""
        return max(self.seeds - len(self.runs), 0) + len(self.diverged)

    @property
    def troubles(self) -> list[str]:
        """What went wrong in its runs, in words."""
        seeds = f"seed{'' if len(self.diverged) == 1 else 's'} {', '.join(map(str, self.diverged))}"
        return [*self.errors, *([f"NaN or infinite values ({seeds})"] if self.diverged else [])]

    @property
    def incidents(self) -> list[Failure]:
        """What the results of its runs are not worth: values that are no numbers, steps that were skipped."""
        found = [
            self._incident(run["seed"], "values", "NaN", run["result"].get("nonfinite") or "a value is NaN or infinite")
            for run in self.runs
            if run["result"].get("nonfinite") or run["seed"] in self.diverged
        ]
        if self.chosen is not None and not _any_finite(self.chosen["result"]["points"]["validation"]):
            told = "no configuration has finite values on the validation split, so the first one was taken"
            found.append(self._incident(self.chosen["seed"], "values", "NaN", told))
        for run in self.runs:
            if run["result"]["skipped"]:
                told = f"{run['result']['skipped']} of {run['result']['cost']['steps']} steps, NaN or infinite"
                found.append(self._incident(run["seed"], "steps", "Skipped", told))
        return found

    def _incident(self, seed: int, by: Literal["values", "steps"], kind: str, told: str) -> Failure:
        return Failure(self.suite, self.task["name"], self.combiner, seed, by, kind, told, "")

    @property
    def name(self) -> tuple[str, str]:
        return self.suite, self.task["name"]

    @property
    def key(self) -> tuple[str, str, str]:
        """Suite, task and contestant."""
        return self.suite, self.task["name"], self.combiner

    @property
    def paths(self) -> list[Mapping[str, Any]]:
        """For each training of each seed its values along the way; empty where they were taken at the end alone."""
        return [path for run in self.runs for path in run["result"]["paths"]]

    @property
    def landmarks(self) -> list[str]:
        """Names of the points that the task compares with."""
        marks = [run["result"]["landmarks"] for run in self.runs]
        return [name for name in marks[0] if all(name in each for each in marks)] if marks else []

    def score_of(self, run: Mapping[str, Any]) -> float:
        """Hypervolume on the test split, a share of the whole front's where that is known; NaN for no finite point."""
        if not _any_finite(run["result"]["points"]["test"]):
            return math.nan
        value = float(run["result"]["score"]["test"])
        whole = self.task["front_hypervolume"]
        return value if whole is None else value / whole

    @property
    def scores(self) -> list[float]:
        """Of the seeds' runs, 0 for what diverged or was refused; those that an error of code ended are left out."""
        scores = [self.score_of(run) for run in self.runs]
        refused = {failure.seed for failure in self.failures if failure.by == "rule"} - {TUNING_SEED}
        return [0.0 if math.isnan(score) else score for score in scores] + [0.0] * len(refused)

    def score(self) -> Estimate | None:
        """The mean of :attr:`scores` with its interval; None where no run has a finite point."""
        if len(self.diverged) == len(self.runs):
            return None
        return estimate(self.scores, (0.0, math.inf if self.task["front_hypervolume"] is None else 1.0))

    def cost(self, what: str) -> float:
        """Median over seeds of ``"cpu_seconds"`` per step, ``"peak_bytes"`` or ``"backwards_per_step"``."""
        costs = [run["result"]["cost"] for run in self.runs]
        if what == "cpu_seconds":
            return float(np.median([c["cpu_seconds"] / max(c["steps"], 1) for c in costs])) if costs else math.nan
        return float(np.median([c[what] for c in costs])) if costs else math.nan

    def metric(self, name: str) -> Estimate | None:
        """An extra metric of the task: the mean over the points of a run, estimated over the seeds that have it."""
        found = [run["result"]["metrics"][name] for run in self.runs if name in run["result"]["metrics"]]
        return estimate([float(np.mean(values)) for values in found])


def _any_finite(points: Iterable[Iterable[float]]) -> bool:
    return any(all(map(math.isfinite, point)) for point in points)


class Results:
    """What the runs of a finished comparison came to: a cell for each rule and task, and the ranking.

    Args:
        source: the folder that ``mtopt compare`` wrote, or an open store.
        name: which of its comparisons. Default: the one that was last finished.

    Raises:
        StoreError: none is finished.
        UnknownNameError: none of that name is.
    """

    def __init__(self, source: str | Path | ResultStore, name: str | None = None) -> None:
        self.store = source if isinstance(source, ResultStore) else ResultStore(source, create=False)
        if name is None:
            finished = self.store.comparisons()
            if not finished:
                raise StoreError(
                    f"{self.store.path} holds no finished comparison yet; run the same mtopt compare again to finish it"
                )
            name = finished[-1]
        self.name = name
        self.request = self.store.request(name)
        self.cells = [self._cell(entry) for entry in self.request["cells"]]
        for cells in self.tasks().values():
            runs = [run for cell in cells for run in cell.runs]
            for run in runs[1:]:
                try:
                    check_alike(run, runs[0])
                except ValueError as error:
                    raise self.store.bad_row(run["key"], error) from error
        self._verdicts: dict[str, Verdict] = {}

    def _cell(self, entry: Mapping[str, Any]) -> Cell:
        rows = self.store.results([*entry["tune"], entry["chosen"], *entry["final"], *entry["front"]])
        done = {key: row for key, row in rows.items() if row["status"] == "done"}
        tasks = {(suite["name"], task["name"]): task for suite in self.request["suites"] for task in suite["tasks"]}
        task = tasks[entry["suite"], entry["task"]]
        runs = tuple(done[key] for key in entry["final"] if key in done)
        for key, row in done.items():
            try:
                check_result(row, task)
            except ValueError as error:
                raise self.store.bad_row(key, error) from error
        return Cell(
            suite=entry["suite"],
            task=task,
            combiner=entry["combiner"],
            runs=runs,
            front=tuple(done[key] for key in entry["front"] if key in done),
            chosen=done.get(entry["chosen"]),
            tuned=len(entry["tune"]),
            options=entry["options"],
            seeds=len(entry["final"]),
            swept=len(entry.get("sweep", ())),
            static=bool(entry.get("static", False)),
            failures=tuple(read_failure(row, entry["combiner"]) for row in rows.values() if row["status"] == "failed"),
        )

    @property
    def failures(self) -> list[Failure]:
        """The runs without a result: those that a rule refused, and those that an error of the code ended."""
        return list(dict.fromkeys(failure for cell in self.cells for failure in cell.failures))

    @property
    def incidents(self) -> list[Failure]:
        """Runs with a result that is not whole: values that are NaN or infinite, steps that were skipped."""
        return [incident for cell in self.cells for incident in cell.incidents]

    @property
    def combiners(self) -> list[str]:
        """The rules, in the order they were asked for."""
        return list(dict.fromkeys(cell.combiner for cell in self.cells))

    def tasks(self) -> dict[tuple[str, str], list[Cell]]:
        """The cells of each task, by suite and task."""
        grouped: dict[tuple[str, str], list[Cell]] = {}
        for cell in self.cells:
            grouped.setdefault(cell.name, []).append(cell)
        return grouped

    def ranking(self) -> Ranking:
        """Mean ranks over tasks, by the mean score over the seeds of each."""
        return self._ranking

    @cached_property
    def _ranking(self) -> Ranking:
        return rank(
            [
                {cell.combiner: math.nan if (score := cell.score()) is None else score.value for cell in cells}
                for cells in self.tasks().values()
            ]
        )

    def verdict(self, against: str = BASELINE) -> Verdict:
        """Which rules beat tuned scalarization, by how much and how sure; or that none does.

        Each rule is paired with it over the tasks, by the mean score over the seeds of each: Wilcoxon's signed-rank
        test, with Holm's correction for the number of rules. ``print`` it for the words; ``rows()`` and ``to_frame()``
        have the numbers. A run that diverged, or that its rule refused, scores 0; runs that an error of code ended are
        left out, and it says so.

        Args:
            against: another of the rules, to compare the others with it.

        Raises:
            UnknownNameError: it is none of :attr:`combiners`.
        """
        if against not in self.combiners:
            raise unknown_name("rule of the comparison", against, self.combiners)
        if against in self._verdicts:
            return self._verdicts[against]
        called = f"tuned static scalarization ({against})" if against == BASELINE else against
        scores = {name: {cell.combiner: cell.scores for cell in cells} for name, cells in self.tasks().items()}
        static = {cell.combiner for cell in self.cells if cell.static} if against == BASELINE else set()
        self._verdicts[against] = judge(scores, against, called=called, static=static)
        return self._verdicts[against]

    def rows(self) -> list[dict[str, Any]]:
        """One plain dictionary per rule and task, for a data frame: rank, score, interval, cost, configuration."""
        ranks = self.ranking().mean_ranks
        return [
            {
                "suite": cell.suite,
                "task": cell.task["name"],
                "combiner": cell.combiner,
                "mean_rank": ranks[cell.combiner],
                "score": math.nan if (score := cell.score()) is None else score.value,
                "interval": None if score is None else score.half_width,
                "low": None if score is None else score.low,
                "high": None if score is None else score.high,
                "seeds": len(cell.runs),
                "cpu_seconds_per_step": cell.cost("cpu_seconds"),
                "backwards_per_step": cell.cost("backwards_per_step"),
                "peak_bytes": cell.cost("peak_bytes"),
                "learning_rate": None if cell.chosen is None else cell.chosen["learning_rate"],
                "hyperparameters": None if cell.chosen is None else cell.chosen["hyperparameters"],
                "errors": list(cell.errors),
            }
            for cell in self.cells
        ]
