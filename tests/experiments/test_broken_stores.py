"""A folder of results with something wrong in it: what is made of it is right, or one line says what is wrong."""

import json
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.experiments import Budget, Comparison, Suite, compare
from mtopt.experiments._store import FILE_NAME
from tests.broken import FEW_OR_MANY, changed, damaged, run_command
from tests.experiments.tiny import ParabolasTask

DECODED = {"hyperparameters", "result", "request"}


class Watched(ParabolasTask):
    """Evaluated on the way, with everything that a page can draw."""

    budget = Budget(steps=4, points=1, trials=1, seeds=2, evaluations=2)
    views = (("near", "far"), ("near", "extra"))
    start = "begin"
    front = staticmethod(lambda points=3: np.array([[0.0, 4.0], [1.0, 1.0], [4.0, 0.0]]))

    def front_hypervolume(self):
        return 76.0

    def landmarks(self, trainer):
        return {"begin": {"near": 3.0, "far": 2.0, "extra": 1.0}}

    def position(self, trainer):
        (x,) = trainer.model.parameters()
        return [float(x.detach()), 0.0]

    def landscape(self):
        return {"x": [-2.0, 0.0, 2.0], "y": [-1.0, 1.0], "z": [[1.0, 2.0]] * 3, "pareto_set": [[-1.0, 0.0], [1.0, 0.0]]}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all is right."""
    folder = tmp_path_factory.mktemp("whole")
    suite = Suite("broken", (ParabolasTask(), Watched("watched")), about="A task of ends and one of paths.")
    compare(suite, combiners=["mgda"], seeds=1, trials=1, out=folder, jobs=1, progress=False)
    return folder


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(shutil.copytree(folder, Path(place) / "results"))


def rows_of(folder: Path, table: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(folder / FILE_NAME)) as store:
        store.row_factory = sqlite3.Row
        return [dict(row) for row in store.execute(f"SELECT rowid, * FROM {table} ORDER BY rowid")]


def put(folder: Path, table: str, row: int, column: str, value: Any) -> None:
    """Write a value where the schema lets it be."""
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as store:
        store.execute(f"UPDATE OR IGNORE {table} SET {column} = ? WHERE rowid = ?", (value, row))


@st.composite
def changes(draw: st.DrawFn, folder: Path) -> tuple[str, int, str, Any]:
    """A table, a row, a column, and what comes to stand there."""
    table = draw(st.sampled_from(["runs", "runs", "comparisons"]))
    row = draw(st.sampled_from(rows_of(folder, table)))
    column = draw(
        st.sampled_from([name for name in row if name != "rowid"] + [name for name in row if name in DECODED] * 6)
    )
    value = row[column]
    if column in DECODED:
        content = draw(changed(json.loads(value)))
        return table, row["rowid"], column, json.dumps(content)
    return (
        table,
        row["rowid"],
        column,
        draw(st.integers(-1, 2**40) | st.floats() | st.binary(max_size=4) | st.just(value)),
    )


def told_in_one_line(status: int, told: str, folder: Path) -> bool:
    """Whether wrong use was told, in one line that names the folder; where all is right nothing is."""
    assert status in (0, 1, 2)
    if status < 2:
        return False
    assert told.startswith("mtopt: ")
    assert told.count("\n") == 1
    assert str(folder) in told
    return True


def look_at(folder: Path) -> None:
    """All that costs little to make of a folder."""
    status, _, told = run_command("export", folder)
    refused = told_in_one_line(status, told, folder)
    merged, _, told = run_command("merge", folder, "--out", folder / "merged")
    told_in_one_line(merged, told, folder)
    if not refused:
        with warnings.catch_warnings(), open(folder / "table", "w", encoding="utf-8") as table:
            warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of infinite scores
            found = Comparison(folder)
            found.rows()
            found.print(table)
            assert "<table" in found._repr_html_()


@FEW_OR_MANY
def test_a_value_that_is_wrong(draws: int, whole: Path) -> None:
    @settings(max_examples=draws)
    @given(changes(whole))
    def check(change: tuple[str, int, str, Any]) -> None:
        with copied(whole) as folder:
            put(folder, *change)
            look_at(folder)

    check()


@FEW_OR_MANY
def test_a_file_that_is_damaged(draws: int, whole: Path) -> None:
    content = (whole / FILE_NAME).read_bytes()

    @settings(max_examples=draws)
    @given(damaged(content) | st.binary(max_size=200))
    def check(content: bytes) -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / FILE_NAME).write_bytes(content)
            look_at(folder)

    check()


@pytest.mark.long
def test_the_page_of_it(whole: Path) -> None:
    @settings(max_examples=200)
    @given(changes(whole))
    def check(change: tuple[str, int, str, Any]) -> None:
        with copied(whole) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # matplotlib's, of characters and numbers that it cannot draw
            put(folder, *change)
            status, _, told = run_command("report", folder)
            assert told_in_one_line(status, told, folder) or list(folder.glob("*/report.html"))

    check()


WRONG = {
    "a point of three numbers": ("result", ["points", "test", 0], [1.0, 2.0, 3.0], "must be 2, found 3"),
    "no points": ("result", ["points", "validation"], [], "has no points on the validation split"),
    "a curve without steps": ("result", ["curves", 0], {"near": [1.0]}, "lacks ['step']"),
    "no curves": ("result", ["curves"], [], "has no curves"),
    "a shorter metric": ("result", ["metrics"], {"extra": []}, "at least one, found [0]"),
    "a shorter path": ("result", ["paths", 0, "far"], [1.0], "equally many values for each name"),
    "no paths": ("result", ["paths"], [], "evaluations, and the run"),
    "a landmark without an axis": ("result", ["landmarks", "begin"], {"near": 1.0}, "lacks ['far']"),
    "a position in space": ("result", ["positions", 0, 0], [1.0, 2.0, 3.0], "a position of its result must be 2"),
    "a number that no float holds": ("result", ["score", "test"], 10**400, "that a float holds, found one of 401"),
    "weights that are texts": ("hyperparameters", ["preference"], ["a", "b"], "must be a number, found 'a'"),
    "a sense": ("request", ["suites", 0, "tasks", 0, "objectives", 0, "sense"], "low", "'min' or 'max', found 'low'"),
    "labels": ("request", ["suites", 0, "tasks", 0, "labels"], ["near"], "its labels must be 2, found 1"),
    "a front's hypervolume": ("request", ["suites", 0, "tasks", 1, "front_hypervolume"], 0.0, "positive, found 0.0"),
    "a landscape": ("request", ["suites", 0, "tasks", 1, "landscape", "x"], [0.0, 0.0, 1.0], "x must be two numbers"),
    "a cell twice": ("request", ["cells", 1, "combiner"], "linear", "must be distinct"),
    "no baseline": ("request", ["cells", 0, "combiner"], "ngdiff", "lack linear, the baseline"),
}
"""A column, a place in it, what is put there in the watched task's reported run, and what the message says."""


@pytest.mark.parametrize("kind", WRONG)
def test_parts_that_do_not_go_together(kind: str, whole: Path) -> None:
    column, place, value, message = WRONG[kind]
    with copied(whole) as folder:
        (request,) = rows_of(folder, "comparisons")
        final = json.loads(request["request"])["cells"][2]["final"][0]
        (run,) = (row for row in rows_of(folder, "runs") if row["key"] == final)
        table, row = ("comparisons", request) if column == "request" else ("runs", run)
        content = part = json.loads(row[column])
        for name in place[:-1]:
            part = part[name]
        part[place[-1]] = value
        put(folder, table, row["rowid"], column, json.dumps(content))
        status, _, told = run_command("export", folder)
        assert told_in_one_line(status, told, folder)
        assert message in told


def test_a_run_that_is_listed_and_not_to_be_found(whole: Path) -> None:
    """As a damaged index leaves it."""
    with copied(whole) as folder:
        with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as store:
            store.execute("PRAGMA writable_schema = 1")
            (root,) = store.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_runs_1'"
            ).fetchone()
            (size,) = store.execute("PRAGMA page_size").fetchone()
        content = bytearray((folder / FILE_NAME).read_bytes())
        content[(root - 1) * size + 3 : (root - 1) * size + 5] = b"\0\0"  # of so many entries of the index
        (folder / FILE_NAME).write_bytes(content)
        status, _, told = run_command("merge", folder, "--out", folder / "merged")
        assert told_in_one_line(status, told, folder)
        assert "is damaged" in told


def test_what_is_right_is_refused_nowhere(whole: Path) -> None:
    with copied(whole) as folder:
        assert run_command("export", folder)[0] == 0
