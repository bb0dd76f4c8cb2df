"""The trials of every contestant: the same number for each that is tuned, whoever proposes them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from mtopt._version import __version__
from mtopt.experiments._contestant import Contestant
from mtopt.experiments._plan import Run, trial_run
from mtopt.experiments._space import search_space, seed_of
from mtopt.experiments._store import ResultStore
from mtopt.experiments._task import Budget, Suite, Task
from mtopt.experiments._tuners import HALTON, make_tuner

Cell = TypeVar("Cell")


class Tuning:
    """The tuning of one contestant on one task, round by round; all its trials so far are ``runs``.

    Trial 0 is the middle of the learning-rate range with the rule's defaults. The tuner proposes the others over the
    learning rate, the rule's declared ``search_space`` and, where a run is one training, its preference; what the
    contestant fixes is left as it is. A contestant that is not tuned has trial 0 alone.
    """

    def __init__(
        self,
        suite: Suite,
        task: Task,
        entry: Contestant,
        budget: Budget,
        *,
        fingerprint: str,
        tuner: str = HALTON,
        storage: str | None = None,
    ) -> None:
        self.trials = budget.trials if entry.tuned else 1
        self.runs: list[Run] = []
        self._run_at = partial(trial_run, suite, task, entry, budget, fingerprint=fingerprint)
        space, seed = search_space(task, entry, budget), seed_of(suite.name, task.name)
        # all that a score depends on: a database's study of another training is another study
        training = budget.steps, budget.points, budget.evaluations, fingerprint, entry, __version__
        digest = hashlib.sha256(repr((space, self.trials, training)).encode()).hexdigest()[:12]
        self._tuner = make_tuner(
            tuner,
            space,
            self.trials,
            seed=seed,
            study=f"{suite.name}/{task.name} {entry.name} {tuner} {digest}",
            storage=storage,
        )

    @property
    def first(self) -> Run:
        """Trial 0."""
        return self._run_at(point=None, trial=0)

    def next_runs(self) -> list[Run]:
        """The runs of the next round; empty when all are done."""
        points = enumerate(self._tuner.propose(), start=len(self.runs))
        found = [self._run_at(point=point, trial=trial) for trial, point in points]
        self.runs += found
        return found

    def observe(self, scores: Sequence[float]) -> None:
        """Take the scores of that round."""
        self._tuner.observe(scores)


def tune(
    tunings: Mapping[Cell, Tuning], run: Callable[..., None], store: ResultStore, *, to_come: int
) -> dict[Cell, list[Run]]:
    """Run all trials, one round of all contestants after the other, and give them.

    ``run`` is :meth:`Workers.run`; ``to_come`` is how many runs follow, for its bar.
    """
    left = sum(tuning.trials for tuning in tunings.values())
    while asked := {cell: runs for cell, tuning in tunings.items() if (runs := tuning.next_runs())}:
        together = [each for runs in asked.values() for each in runs]
        left -= len(together)
        run(together, to_come=left + to_come)
        scores = validation_scores(store, together)
        for cell, runs in asked.items():
            tunings[cell].observe([scores.get(each.key, 0.0) for each in runs])
    return {cell: tuning.runs for cell, tuning in tunings.items()}


def validation_scores(store: ResultStore, runs: Iterable[Run]) -> dict[str, float]:
    """By key the hypervolume on the validation split of those that have one."""
    results = store.results(run.key for run in runs)
    found: dict[str, Any] = {
        key: row["result"]["score"]["validation"] for key, row in results.items() if row["status"] == "done"
    }
    return {key: score for key, score in found.items() if not math.isnan(score)}


def best(store: ResultStore, trials: Sequence[Run]) -> Run:
    """The trial with the largest hypervolume on the validation split; the first of equals."""
    scores = validation_scores(store, trials)
    return max(trials, key=lambda run: scores.get(run.key, -1.0))


def describe_tuner(name: str) -> dict[str, str]:
    """What the report says of who proposed the trials: the tuner's name, and the package with its version."""
    if name == HALTON:
        return {"name": name}
    import optuna

    return {"name": name, "package": f"Optuna {optuna.__version__}"}
