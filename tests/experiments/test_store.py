"""The result store: nothing lost, nothing foreign accepted."""

import json
import sqlite3
from contextlib import closing

import pytest

import mtopt
from mtopt._errors import StoreError
from mtopt.experiments import Budget, compare
from mtopt.experiments._results import Results
from mtopt.experiments._store import FILE_NAME, ResultStore
from tests.experiments import tiny
from tests.experiments.results import make_result
from tests.experiments.tiny import suite, tuning_runs

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
        Results(ResultStore(tmp_path))


def connect(tmp_path):
    return closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None))


def test_a_foreign_database_gets_no_tables(tmp_path):
    with connect(tmp_path) as other:
        other.execute("CREATE TABLE photos (name TEXT)")
    before = (tmp_path / FILE_NAME).read_bytes()
    for create in (True, False):
        with pytest.raises(StoreError, match=r"results.sqlite3 is no result store but .* \['photos'\]"):
            ResultStore(tmp_path, create=create)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_database_whose_tables_have_the_same_names_alone_is_foreign(tmp_path):
    with connect(tmp_path) as other:
        other.execute("CREATE TABLE runs (distance REAL)")
        other.execute("CREATE TABLE comparisons (name TEXT PRIMARY KEY, request TEXT NOT NULL)")
        other.execute("PRAGMA user_version = 1")
    with pytest.raises(StoreError, match="is no result store but a database"):
        ResultStore(tmp_path)


def test_an_empty_file_holds_no_comparison_and_may_become_a_store(tmp_path):
    (tmp_path / FILE_NAME).touch()
    with pytest.raises(StoreError, match=r"results.sqlite3 is empty; run mtopt compare first"):
        ResultStore(tmp_path, create=False)
    assert (tmp_path / FILE_NAME).read_bytes() == b""
    assert ResultStore(tmp_path).finished() == set()


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(StoreError, match=r"file is a file, not a folder"):
            ResultStore(place)


BROKEN_ROWS = {
    "half a result": ("result", '{"score": {"valid'),
    "no object": ("result", "[1, 2]"),
    "no score": ("result", json.dumps({**make_result(), "score": None})),
    "a text for a point": ("result", json.dumps(make_result(points={"validation": [[1.0]], "test": [["x"]]}))),
    "deep": ("result", "[" * 100_000),
    "long number": ("result", "1" * 6000),
    "hyperparameters": ("hyperparameters", "mgda"),
    "bytes": ("result", b"\xff\xfe{}"),
    "not text": ("result", "CAST(X'ff' AS TEXT)"),
    "seed": ("seed", "none"),
}


@pytest.mark.parametrize("kind", BROKEN_ROWS)
def test_a_bad_row_is_named_with_file_and_key(kind, tmp_path):
    store = ResultStore(tmp_path)
    for run in RUNS:
        store.add(run, "done", make_result())
    column, value = BROKEN_ROWS[kind]
    with connect(tmp_path) as other:
        if kind == "not text":
            other.execute(f"UPDATE runs SET {column} = {value} WHERE key = ?", (RUNS[0].key,))
        else:
            other.execute(f"UPDATE runs SET {column} = ? WHERE key = ?", (value, RUNS[0].key))
    with pytest.raises(StoreError, match=rf"{FILE_NAME}.*{RUNS[0].key}"):
        store.results(run.key for run in RUNS)
    assert list(store.results([RUNS[1].key])) == [RUNS[1].key]


@pytest.mark.parametrize("request_", ["{", "[]", "{}", '{"suites": 3}', "null"])
def test_a_bad_request_is_named_with_its_file(request_, tmp_path):
    store = ResultStore(tmp_path)
    with connect(tmp_path) as other:
        other.execute("INSERT INTO comparisons VALUES ('last', ?)", (request_,))
    with pytest.raises(StoreError, match=rf"{FILE_NAME}, comparisons.request: .*run the same mtopt compare again"):
        store.request("last")


def test_a_damaged_file_is_told_from_a_foreign_one(tmp_path):
    store = ResultStore(tmp_path)
    for run in RUNS:
        store.add(run, "done", make_result(curves=[{"step": list(range(2000))}]))
    content = bytearray((tmp_path / FILE_NAME).read_bytes())
    content[4096:] = b"\x55" * (len(content) - 4096)
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(StoreError, match=rf"{FILE_NAME} is damaged; restore it .*reading run {RUNS[0].key}"):
        store.results([RUNS[0].key])


def connecting_with(monkeypatch, change):
    whole = sqlite3.connect

    def connect(place, **settings):
        place, settings, pragma = change(place, settings)
        connection = whole(place, **settings)
        if pragma:
            connection.execute(pragma)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)


def test_a_store_that_may_only_be_read_is_read(tmp_path, monkeypatch):
    store = ResultStore(tmp_path)
    store.add(RUNS[0], "done", make_result())
    # as the system opens a file without the permission to write, which root always has
    connecting_with(monkeypatch, lambda place, settings: (f"{place.partition('?')[0]}?mode=ro", settings, None))
    for create in (True, False):
        assert ResultStore(tmp_path, create=create).finished() == {RUNS[0].key}
    with pytest.raises(StoreError, match=rf"may not be written to; change its permissions.*storing run {RUNS[1].key}"):
        store.add(RUNS[1], "done", make_result())


def test_a_full_disk_is_told_and_loses_nothing_else(tmp_path, monkeypatch):
    store = ResultStore(tmp_path)
    store.add(RUNS[0], "done", make_result())
    with monkeypatch.context() as patch:
        connecting_with(patch, lambda place, settings: (place, settings, "PRAGMA max_page_count = 1"))
        with pytest.raises(StoreError, match=rf"has no room on its disk; make room.*storing run {RUNS[1].key}"):
            store.add(RUNS[1], "done", make_result(curves=[{"step": list(range(100_000))}]))
    assert store.finished() == {RUNS[0].key}


def test_a_store_stays_where_it_was_opened(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    store = ResultStore("here")
    monkeypatch.chdir(tmp_path / "other")
    store.add(RUNS[0], "done", make_result())
    assert store.path == tmp_path / "here" / FILE_NAME
    assert list((tmp_path / "other").iterdir()) == []


def test_a_folder_is_held_by_one_comparison(tmp_path):
    with ResultStore(tmp_path).held_alone():
        with pytest.raises(mtopt.InUseError, match=r"in use .*wait for its end, or give another --out"):
            compare(tiny.task, out=tmp_path, jobs=1, progress=False)
        assert ResultStore(tmp_path, create=False).finished() == set()  # who reads needs no turn
