"""``mtopt.compare``: run the grid, keep every run, give the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from mtopt._errors import UnknownNameError, unknown_name
from mtopt.combiners import list_combiners
from mtopt.experiments._backends import check_backend
from mtopt.experiments._bar import progress_bar
from mtopt.experiments._baseline import BASELINE, is_copy, is_static, sweep
from mtopt.experiments._contestant import Contestant, as_contestant, rule_class
from mtopt.experiments._environment import environment
from mtopt.experiments._loading import SuiteLike, load_suite
from mtopt.experiments._names import check_name, name_of
from mtopt.experiments._outputs import check_declared, describe
from mtopt.experiments._plan import TUNING_SEED, Run, final_runs, replaced
from mtopt.experiments._store import ResultStore
from mtopt.experiments._task import Budget, Suite, Task
from mtopt.experiments._tuners import HALTON, check_tuner
from mtopt.experiments._tuning import Tuning, best, describe_tuner, tune
from mtopt.experiments._workers import Workers
from mtopt.experiments.presentation import Comparison

Cell = tuple[str, str, str]
"""Suite, task and the name of a contestant."""


def compare(
    *suites: SuiteLike,
    combiners: Sequence[str] | None = None,
    seeds: int | None = None,
    trials: int | None = None,
    out: str | Path = "mtopt-results",
    name: str | None = None,
    quick: bool = False,
    jobs: int | None = None,
    backend: str | None = None,
    progress: bool = True,
    tuning: str = HALTON,
    tuning_storage: str | None = None,
) -> Comparison:
    """Compare gradient-combination rules on suites of tasks, each under the same budget.

    On every task every rule tries the same number of configurations (learning rate and own hyper-parameters) on a seed
    kept for tuning; the one with the largest hypervolume on the validation split is run with each of ``seeds`` other
    seeds, and these runs' test split is what is reported. Static linear scalarization is always among the rules, at the
    best on validation of all static weights tried, a sweep of its own among them. Every finished run is stored at once
    under ``out``; the same call again runs only what is missing, so a killed comparison resumes.

    Args:
        suites: short names (``"toy"``, see :func:`list_suites`), import paths (``"my_suite"``, ``"module:object"``),
            :class:`Suite` or :class:`Task` objects.
        combiners: names of registered rules or of the suites' contestants, or ``"module:Class"``; default: those that
            each suite names. ``["all"]``: every registered rule.
        seeds: default: the budgets' own.
        trials: configurations a rule tries on a task; default: the budgets' own.
        out: folder of the store; one comparison at a time works in it, and any number may be kept there.
        name: of this comparison, and of the folder under ``out`` for its page and figures. Default: made from what is
            compared. The same call has the same name, and takes its own earlier place alone.
        quick: the tasks' small budgets: a first look in minutes, not a result to publish.
        jobs: processes at a time; default: one per core. 1 runs in this process, unless a backend is named.
        backend: ``"loky"``, processes of this machine; ``"dask"`` or ``"ray"``, a cluster: that of the current client,
            else of ``DASK_SCHEDULER_ADDRESS`` or ``RAY_ADDRESS``, else one started here for the time being. Default:
            processes, or what ``joblib.parallel_config(backend=...)`` names around the call.
        progress: show a progress bar.
        tuning: who proposes the trials: ``"halton"``, scrambled Halton points, or a sampler of Optuna that learns from
            the scores on validation, ``"tpe"``, ``"gp"`` or ``"nsga2"``. The number of trials is the same.
        tuning_storage: URL of a database for Optuna's studies, such as ``"sqlite:///studies.db"``. Default: memory,
            since ``out`` is enough to resume from.

    Returns:
        The comparison: its table, figures and report.

    Raises:
        ValueError, UnknownNameError: a suite or a rule that there is not, a task that declares what is of no use, or
            the name of another comparison; or a package for ``tuning`` or ``backend`` is not installed.
        InUseError: another comparison is at work in ``out``.
        StoreError: ``out`` holds something else, or cannot be written to.
    """
    if not suites:
        raise ValueError("compare needs at least one suite, for example 'toy'")
    for what, value in (("seeds", seeds), ("trials", trials), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ValueError(f"{what} must be at least 1, found {value}")
    if name is not None:
        check_name(name)
    check_tuner(tuning, tuning_storage)
    check_backend(backend)
    out = Path(out).absolute()  # before a suite or task can change the working directory
    loaded = [load_suite(suite) for suite in suites]
    if len({suite.name for suite in loaded}) < len(loaded):
        raise ValueError(f"suites must have distinct names, found {[suite.name for suite in loaded]}")
    tasks = {(suite.name, task.name): task for suite in loaded for task in suite.tasks}
    for task in tasks.values():
        check_declared(task)
    budgets = {place: _budget(task, quick=quick, seeds=seeds, trials=trials) for place, task in tasks.items()}
    entries: dict[Cell, Contestant] = {}
    tunings: dict[Cell, Tuning] = {}
    for suite in loaded:
        rules = _rules(suite, combiners)
        for task in suite.tasks:
            place, fingerprint = (suite.name, task.name), task.fingerprint()
            for entry in rules:
                cell = *place, entry.name
                entries[cell] = entry
                tunings[cell] = Tuning(
                    suite,
                    task,
                    entry,
                    budgets[place],
                    fingerprint=fingerprint,
                    tuner=tuning,
                    storage=tuning_storage,
                )
    told = [
        {"name": suite.name, "about": suite.about, "tasks": [describe(task) for task in suite.tasks]}
        for suite in loaded
    ]
    asked = {
        "suites": [suite.name for suite in loaded],
        "combiners": None if combiners is None else list(combiners),
        "seeds": seeds,
        "trials": trials,
        "quick": quick,
        **({} if tuning == HALTON else {"tuning": tuning}),
    }
    store = ResultStore(out)
    name = name_of(store, name, asked)
    with (
        store.held_alone(),
        progress_bar(show=progress) as bar,
        closing(Workers(store, tasks, jobs, bar, backend=backend)) as worker,
    ):
        worker.prepare([(place, seed) for place in tasks for seed in (TUNING_SEED, *range(budgets[place].seeds))])
        finals_to_come = sum(budgets[cell[:2]].seeds for cell in tunings)
        sweeps_to_come = sum(
            len(sweep(tuned.first, tasks[cell[:2]], entries[cell], tried=0))
            for cell, tuned in tunings.items()
            if cell[2] == BASELINE
        )
        tried = tune(tunings, worker.run, store, to_come=finals_to_come + sweeps_to_come)
        chosen = {cell: best(store, runs) for cell, runs in tried.items()}
        sweeps = {
            cell: sweep(run, tasks[cell[:2]], entries[cell], tried=len(tried[cell]))
            for cell, run in chosen.items()
            if cell[2] == BASELINE
        }
        worker.run([run for runs in sweeps.values() for run in runs], to_come=finals_to_come)
        for cell, runs in sweeps.items():
            tried[cell] += runs
            chosen[cell] = _best_static(store, tasks[cell[:2]], cell, entries, tried)
        _choose_copies_alike(tasks, entries, tried, chosen)
        finals = {cell: final_runs(run, budgets[cell[:2]].seeds) for cell, run in chosen.items()}
        worker.run([run for runs in finals.values() for run in runs])
        store.save_request(
            name,
            {
                "asked": asked,
                "suites": told,
                "cells": [
                    {
                        **dict(zip(("suite", "task", "combiner"), cell, strict=True)),
                        "options": dict(entry.options),
                        "scale_invariant": entry.rule.scale_invariant,
                        "needs": entry.rule.needs,
                        "static": _is_other_static(cell, entries, tasks[cell[:2]]),
                        "tune": [run.key for run in tried[cell]],
                        "chosen": chosen[cell].key,
                        "final": [run.key for run in finals[cell]],
                        "sweep": [run.key for run in sweeps.get(cell, [])],
                        "front": [run.key for run in sweeps.get(cell, []) if _is_line(run, tasks[cell[:2]])],
                    }
                    for cell, entry in entries.items()
                ],
                "budgets": [{"suite": s, "task": t, **asdict(budget)} for (s, t), budget in budgets.items()],
                "quick": quick,
                "tuning": describe_tuner(tuning),
                "environment": environment(),
            },
        )
    return Comparison(store, name)


def _rules(suite: Suite, combiners: Sequence[str] | None) -> list[Contestant]:
    """What is entered, aliases resolved, with the baseline first; checked before hours are spent."""
    if combiners is not None and list(combiners) == ["all"]:
        combiners = list_combiners()
    known = {entry.name: entry for entry in suite.contestants}
    found: dict[str, Contestant] = {}
    for name in (BASELINE, *(combiners if combiners is not None else suite.combiners)):
        try:
            entry = as_contestant(name, known)
            rule_class(entry.combiner)
        except UnknownNameError:
            raise unknown_name(f"rule of suite {suite.name!r}", name, [*known, *list_combiners()]) from None
        found.setdefault(entry.name, entry)
    return list(found.values())


def _budget(task: Task, *, quick: bool, seeds: int | None, trials: int | None) -> Budget:
    budget = task.quick_budget if quick else task.budget
    if seeds is not None:
        budget = replace(budget, seeds=seeds)
    return budget if trials is None else replace(budget, trials=trials)


def _best_static(
    store: ResultStore,
    task: Task,
    cell: Cell,
    entries: Mapping[Cell, Contestant],
    tried: Mapping[Cell, Sequence[Run]],
) -> Run:
    """The best of all static weights that were trained on the task, by contestants with weights of their own, too."""
    others = [
        replaced(run, name=BASELINE)
        for other, runs in tried.items()
        if other[:2] == cell[:2] and other != cell and is_static(entries[other], entries[cell], task)
        for run in runs
    ]
    return best(store, [*tried[cell], *others])


def _choose_copies_alike(
    tasks: Mapping[tuple[str, str], Task],
    entries: Mapping[Cell, Contestant],
    tried: dict[Cell, list[Run]],
    chosen: dict[Cell, Run],
) -> None:
    """What is the baseline under another name is tuned as it is; else two choices would be compared, and no rules."""
    for cell, entry in entries.items():
        baseline = *cell[:2], BASELINE
        if cell != baseline and is_copy(entry, entries[baseline], tasks[cell[:2]]):
            tried[cell], chosen[cell] = tried[baseline], replaced(chosen[baseline], name=cell[2])


def _is_other_static(cell: Cell, entries: Mapping[Cell, Contestant], task: Task) -> bool:
    """Whether it is static scalarization that was not chosen as the baseline is."""
    entry, baseline = entries[cell], entries[*cell[:2], BASELINE]
    return cell[2] != BASELINE and is_static(entry, baseline, task) and not is_copy(entry, baseline, task)


def _is_line(run: Run, task: Task) -> bool:
    """Whether the figure of the task draws the sweep: single trainings, by two objectives."""
    return run.points == 1 and len(task.objectives) == 2 and task.static_front
