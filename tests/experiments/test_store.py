"""The result store: nothing lost, nothing foreign accepted."""

import sqlite3

import pytest

from mtopt.experiments import Budget
from mtopt.experiments._plan import tuning_runs
from mtopt.experiments._store import FILE_NAME, ResultStore
from tests.experiments.results import make_result
from tests.experiments.tiny import suite

RUNS = tuning_runs(suite, suite.tasks[0], "mgda", Budget(steps=3, trials=2))


def test_a_row_is_on_disk_when_add_returns(tmp_path):
    ResultStore(tmp_path).add(RUNS[0], "done", {"score": {"test": 0.5}})
    with sqlite3.connect(tmp_path / FILE_NAME) as other:
        assert other.execute("SELECT combiner, status FROM runs").fetchall() == [("mgda", "done")]


def test_round_trip(tmp_path):
    store = ResultStore(tmp_path)
    store.add(RUNS[1], "done", make_result(0.7))
    row = ResultStore(tmp_path).results([RUNS[1].key, "absent"])[RUNS[1].key]
    assert row["result"] == make_result(0.7)
    assert row["hyperparameters"] == RUNS[1].hyperparameters
    assert row["learning_rate"] == RUNS[1].learning_rate


def test_failed_runs_are_tried_again_and_replaced(tmp_path):
    store = ResultStore(tmp_path)
    store.add(RUNS[0], "failed", {"error": "ValueError: no"})
    assert store.finished() == set()
    store.add(RUNS[0], "done", make_result())
    assert store.finished() == {RUNS[0].key}
    assert store.results([RUNS[0].key])[RUNS[0].key]["status"] == "done"


def test_missing_store_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run mtopt compare first"):
        ResultStore(tmp_path / "nowhere", create=False)
    assert not (tmp_path / "nowhere").exists()


def test_foreign_file_is_refused_and_left_alone(tmp_path):
    (tmp_path / FILE_NAME).write_text("no database, but a text that someone may need" * 10)
    with pytest.raises(ValueError, match="is no result store"):
        ResultStore(tmp_path)
    assert (tmp_path / FILE_NAME).read_text().startswith("no database")


def test_other_version_is_refused(tmp_path):
    ResultStore(tmp_path)
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="format 99"):
        ResultStore(tmp_path)


def test_unfinished_comparison_says_so(tmp_path):
    with pytest.raises(ValueError, match="no finished comparison yet"):
        ResultStore(tmp_path).request()
