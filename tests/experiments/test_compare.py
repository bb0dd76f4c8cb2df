"""The comparison, end to end on a suite of milliseconds."""

import importlib
import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

import mtopt
from mtopt.cli import main
from mtopt.experiments import Budget, Comparison, Suite, compare
from mtopt.experiments._store import FILE_NAME
from tests.experiments import tiny

ROOT = Path(__file__).parents[2]


def rows_of(folder):
    with sqlite3.connect(folder / FILE_NAME) as connection:
        return connection.execute("SELECT key, combiner, seed, status, result FROM runs").fetchall()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return compare(tiny.suite, out=folder, jobs=1, progress=False)


def test_grid_is_complete(finished):
    budget = tiny.ParabolasTask.budget
    rows = rows_of(finished.store.directory)
    # two tasks x two rules x (trials + seeds), and five preferences of static scalarization on each task
    assert len(rows) == 2 * 2 * (budget.trials + budget.seeds) + 2 * 5
    assert {row[3] for row in rows} == {"done"}
    assert all(len(cell.runs) == budget.seeds for cell in finished.cells)


def test_reported_scores_are_those_of_the_points(finished):
    for cell in finished.cells:
        for run in cell.runs:
            (point,) = run["result"]["points"]["test"]
            assert run["result"]["score"]["test"] == pytest.approx(math.prod(9.0 - p for p in point))
            near, far = (math.sqrt(p) for p in point)
            assert near + far == pytest.approx(2.0, abs=0.2)  # trained to the front


def test_configuration_with_the_best_validation_score_is_chosen(tmp_path):
    class Misleading(tiny.ParabolasTask):
        """The test split prefers what the validation split does not."""

        def values(self, trainer, split, *, seed):
            rate = trainer.optimizer.param_groups[0]["lr"]
            value = rate if split == "validation" else 1.0 - rate
            return {"near": value, "far": value}

    comparison = compare(Misleading(), combiners=["mgda"], out=tmp_path, jobs=1, progress=False)
    for cell in comparison.cells:
        tuned = [json.loads(r[4]) for r in rows_of(tmp_path) if r[1] == cell.combiner and r[2] > 1000]
        best = max(tuned, key=lambda result: result["score"]["validation"])
        assert cell.chosen["result"]["points"] == best["points"]
        assert best["score"]["test"] == min(result["score"]["test"] for result in tuned)


def test_same_command_again_runs_nothing(finished, monkeypatch):
    before = rows_of(finished.store.directory)
    monkeypatch.setattr("mtopt.experiments._workers.execute", lambda *_: pytest.fail("a finished run was repeated"))
    again = compare(tiny.suite, out=finished.store.directory, jobs=1, progress=False)
    assert rows_of(finished.store.directory) == before
    assert again.rows() == finished.rows()


def test_processes_give_the_same_results(finished, tmp_path):
    parallel = compare(tiny.suite, out=tmp_path, jobs=2, progress=False)
    for one, other in zip(finished.rows(), parallel.rows(), strict=True):
        timing = {"cpu_seconds_per_step"}
        assert {k: v for k, v in one.items() if k not in timing} == {k: v for k, v in other.items() if k not in timing}


# Each run is a child forked from one process, so that torch is imported once. A line of JSON for each of them: its exit
# code, the rows in the store, the trainings that were finished.
KILLED_TWICE = """
import json, os, sqlite3, sys
from pathlib import Path

import torch

import tests.experiments.tiny as tiny
from mtopt.cli import main
from mtopt.experiments._store import FILE_NAME

torch.set_num_threads(1)
out, log = Path(sys.argv[1]), Path(os.environ[tiny.LOG])
for kill_at in ("4", "17", "-1"):
    child = os.fork()
    if child == 0:
        os.environ[tiny.KILL_AT] = kill_at
        sys.exit(main(["compare", "tests.experiments.tiny", "--jobs", "1", "--out", str(out)]))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with sqlite3.connect(out / FILE_NAME) as connection:
        (rows,) = connection.execute("SELECT COUNT(*) FROM runs").fetchone()
    print(json.dumps([code, rows, len(log.read_text().splitlines())]), flush=True)
"""


def test_kill_and_resume_loses_and_repeats_nothing(tmp_path):
    log = tmp_path / "log"
    program = [sys.executable, "-c", KILLED_TWICE, str(tmp_path / "out")]
    environment = {**os.environ, tiny.LOG: str(log), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert after == [[-signal.SIGKILL, 4, 4], [-signal.SIGKILL, 17, 17], [0, 30, 30]]
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2 * 2 * 5 + 2 * 5
    assert len(log.read_text().splitlines()) == len(rows)  # every run was finished exactly once
    assert len(list((tmp_path / "out").rglob("report.html"))) == 1


def test_static_scalarization_is_always_there(tmp_path):
    comparison = compare(tiny.task, combiners=["ngdiff"], out=tmp_path, jobs=1, progress=False, seeds=1, trials=1)
    assert comparison.combiners == ["linear", "ngdiff"]


def test_aliases_are_one_rule(tmp_path):
    comparison = compare(
        tiny.task, combiners=["ew", "linear", "mean"], out=tmp_path, jobs=1, progress=False, quick=True
    )
    assert comparison.combiners == ["linear"]


def test_quick_budget_and_overrides(tmp_path):
    comparison = compare(tiny.task, out=tmp_path, jobs=1, progress=False, quick=True, seeds=2, trials=1)
    (budget,) = comparison.request["budgets"]
    assert (budget["steps"], budget["points"], budget["trials"], budget["seeds"]) == (5, 2, 1, 2)
    assert all(len(run["result"]["points"]["test"]) == 2 for cell in comparison.cells for run in cell.runs)


def test_rule_that_does_not_fit_is_reported_and_ranked_last(tmp_path):
    @mtopt.register_combiner("only_for_positive_norms")
    class Refuses(mtopt.GramianCombiner):
        """Refuses."""

        def weights(self, gramian, losses=None):
            raise ValueError("losses must be positive")

    comparison = compare(
        tiny.task, combiners=["only_for_positive_norms", "mgda"], out=tmp_path, jobs=1, progress=False, quick=True
    )
    assert list(comparison.ranking().mean_ranks)[-1] == "only_for_positive_norms"
    text = StringIO()
    comparison.print(text)
    assert "losses must be positive" in text.getvalue()
    assert "losses must be positive" in comparison.report().read_text()


def test_maximised_objectives_are_flipped_once(tmp_path):
    class Upwards(tiny.ParabolasTask):
        objectives = (mtopt.Objective("near"), mtopt.Objective("gain", sense="max"))
        reference_point = (9.0, -9.0)

        def values(self, trainer, split, *, seed):
            values = super().values(trainer, split, seed=seed)
            return {"near": values["near"], "gain": -values["far"]}

    plain = compare(tiny.task, out=tmp_path / "a", jobs=1, progress=False)
    flipped = compare(Upwards(), out=tmp_path / "b", jobs=1, progress=False)
    assert [r["score"] for r in plain.rows()] == [r["score"] for r in flipped.rows()]


def test_wrong_use_is_named_before_anything_runs(tmp_path):
    with pytest.raises(mtopt.UnknownNameError, match="did you mean 'mgda'"):
        compare(tiny.suite, combiners=["mgdaa"], out=tmp_path)
    with pytest.raises(ValueError, match="at least one suite"):
        compare(out=tmp_path)
    with pytest.raises(ValueError, match="seeds must be at least 1, found 0"):
        compare(tiny.suite, seeds=0, out=tmp_path)
    with pytest.raises(ValueError, match="distinct names"):
        compare(tiny.suite, tiny.suite, out=tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


def test_report_is_made_again_from_the_store_alone(finished, tmp_path, monkeypatch, capsys):
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / FILE_NAME).write_bytes((finished.store.directory / FILE_NAME).read_bytes())
    with monkeypatch.context() as patch:
        for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
            patch.setitem(sys.modules, name, None)  # the suite cannot be imported any more
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("tests.experiments.tiny")
        assert main(["report", str(moved)]) == 0
    printed = StringIO()
    finished.print(printed)
    assert capsys.readouterr().out.split("report:")[0].strip() == printed.getvalue().strip()
    again = finished.report(tmp_path / "again.html", figures=tmp_path / "figures")
    assert (moved / finished.name / "report.html").read_text() == again.read_text()
    assert {f.suffix for f in (moved / finished.name / "figures").iterdir()} == {".png", ".svg"}


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.links = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href") and value]


def test_report_opens_offline(finished):
    text = finished.report().read_text()
    page = _Page()
    page.feed(text)
    assert page.tags.count("script") == 1  # inline: no src is among the links
    assert "svg" in page.tags
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not re.search(r"url\((?!#)|@import", text)
    for name in ("linear", "mgda", "parabolas", "again"):
        assert name in text


def test_rows_are_plain(finished):
    rows = finished.rows()
    json.dumps(rows)
    assert {(row["task"], row["combiner"]) for row in rows} == {
        (task, rule) for task in ("parabolas", "again") for rule in ("linear", "mgda")
    }
    assert all(np.isfinite(row["score"]) and row["seeds"] == 2 for row in rows)
    backwards = {row["combiner"]: row["backwards_per_step"] for row in rows}
    assert backwards == {"linear": 1, "mgda": 2}


def test_ranks_are_over_tasks_however_few(finished, tmp_path):
    assert finished.ranking().tasks == 2
    three = Suite("three", tuple(tiny.ParabolasTask(n) for n in "abc"), combiners=("mgda",))
    quick = Budget(steps=2, trials=1, seeds=1)
    for task in three.tasks:
        task.budget = quick
    compare(three, out=tmp_path, jobs=1, progress=False)
    assert Comparison(tmp_path).ranking().tasks == 3


def test_all_rules_can_be_compared(tmp_path):
    comparison = compare(tiny.task, combiners=["all"], out=tmp_path, jobs=1, progress=False, seeds=1, trials=2)
    assert set(comparison.combiners) == set(mtopt.list_combiners())
    failed = {cell.combiner: cell.errors for cell in comparison.cells if not cell.runs}
    # both losses are positive and there are two of them, so that every rule of the package fits
    own = [name for name in failed if mtopt.combiners.combiner_class(name).__module__.startswith("mtopt.")]
    assert own == [], failed
    comparison.print(StringIO())
