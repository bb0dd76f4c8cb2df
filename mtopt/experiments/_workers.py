"""Runs what is not in the store yet, over the machine's cores, and stores each result as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from mtopt.experiments._backends import Pool, open_pool
from mtopt.experiments._bar import Bar
from mtopt.experiments._execute import execute
from mtopt.experiments._failure import attempt
from mtopt.experiments._plan import Run
from mtopt.experiments._store import ResultStore
from mtopt.experiments._task import Task

Place = tuple[str, str]
"""Suite and task."""

Finished = tuple[str, dict[str, Any]]


class Workers:
    """The processes of a comparison; ``jobs`` of them, one per core by default, none but this one for 1.

    Where a ``backend`` is named, all runs go to it. Results come here, to the only one that writes to the store.
    """

    def __init__(
        self,
        store: ResultStore,
        tasks: Mapping[Place, Task],
        jobs: int | None,
        bar: Bar,
        *,
        backend: str | None = None,
    ) -> None:
        self.store, self.tasks, self.jobs, self.bar, self.backend = store, tasks, jobs, bar, backend
        self._seen = 0
        self._pool: Pool | None = None
        self._unprepared: dict[tuple[Place, int], dict[str, str]] = {}
        self._told: set[tuple[Place, str]] = set()

    def prepare(self, needed: Sequence[tuple[Place, int]]) -> None:
        """What the runs of each task and seed start from, one process per seed: never made by two runs at once.

        Where that fails for a seed, its runs have failed.
        """
        waiting = [(place, seed) for place, seed in needed if type(self.tasks[place]).prepare != Task.prepare]
        self.bar.advance(0, "preparing" if waiting else "")
        calls = [(_prepare, (place, seed), self.tasks[place], seed) for place, seed in waiting]
        for at, (status, failure) in self._each(calls):
            if status == "failed":
                self._unprepared[at] = failure

    def run(self, runs: Sequence[Run], *, to_come: int = 0) -> None:
        """Run those that are not finished; what one of them raises is its result, and the others go on.

        ``to_come`` is how many more there will be, for the bar.
        """
        unique = {run.key: run for run in runs}
        finished = self.store.finished()
        missing = [run for key, run in unique.items() if key not in finished]
        self._seen += len(unique)
        self.bar.expect(self._seen + to_come)
        self.bar.advance(len(unique) - len(missing), "")
        for run, (status, result) in self._results(missing):
            self.store.add(run, status, result)
            self.bar.advance(1, str(run))
            self._tell(run, result)

    def _results(self, runs: Sequence[Run]) -> Iterator[tuple[Run, Finished]]:
        calls = []
        for run in runs:
            place = run.suite, run.task
            if (place, run.seed) in self._unprepared:
                yield run, ("failed", self._unprepared[place, run.seed])
            else:
                calls.append((execute, run, run, self.tasks[place]))
        yield from self._each(calls)

    def _each(self, calls: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Any, Any]]:
        """``(label, function(*arguments))`` of each ``(function, label, *arguments)``, in the order that they end."""
        if self.backend is None and (self.jobs == 1 or len(calls) <= 1):
            for function, label, *arguments in calls:
                yield label, function(*arguments)
            return
        if self._pool is None:
            self._pool = open_pool(self.backend, self.jobs)
        yield from self._pool.each(calls)

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.close()

    def _tell(self, run: Run, result: Mapping[str, Any]) -> None:
        """The first failure of its kind on each task; all of them are in the comparison."""
        if result.get("by") == "code" and (known := ((run.suite, run.task), result["kind"])) not in self._told:
            self._told.add(known)
            self.bar.tell(f"{run} failed, the others go on. {result['traceback'] or result['error']}")


def _prepare(task: Task, seed: int) -> tuple[str, Any]:
    torch.set_num_threads(1)
    return attempt(task.prepare, seed)
