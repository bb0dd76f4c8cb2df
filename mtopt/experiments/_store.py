"""Where finished runs are kept: one sqlite3 file, one row per run, written the moment the run ends."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtopt._errors import StoreError, unknown_name
from mtopt.experiments._consistent import check_request
from mtopt.experiments._plan import Run
from mtopt.experiments._shapes import FAILED, REQUEST, RESULT, ROW, check_shape
from mtopt.files import parse_json
from mtopt.locks import held_alone

FILE_NAME = "results.sqlite3"
SCHEMA_VERSION = 1

_TABLES = {
    "runs": """(
        key TEXT PRIMARY KEY,
        suite TEXT NOT NULL, task TEXT NOT NULL, combiner TEXT NOT NULL,
        hyperparameters TEXT NOT NULL, learning_rate REAL NOT NULL,
        seed INTEGER NOT NULL, steps INTEGER NOT NULL, points INTEGER NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('done', 'failed')),
        result TEXT NOT NULL, finished TEXT NOT NULL
    )""",
    "comparisons": "(name TEXT PRIMARY KEY, request TEXT NOT NULL)",
}

_COLUMNS = {
    "runs": set(ROW),
    "comparisons": {"name", "request"},
}

_ADVICE = {
    "SQLITE_NOTADB": "is no result store; move it away or give another --out",
    "SQLITE_CORRUPT": "is damaged; restore it from a copy, or move it away and run mtopt compare again",
    "SQLITE_READONLY": "may not be written to; change its permissions and its folder's, or give another --out",
    "SQLITE_FULL": "has no room on its disk; make room and run the same mtopt compare again, which goes on from here",
    "SQLITE_IOERR": "could not be read or written to the end; see to its disk and run the same mtopt compare again, "
    "which goes on from here",
    "SQLITE_CANTOPEN": "cannot be opened; give another --out",
    "SQLITE_BUSY": "is held by another program; end that, or give another --out",
}


class ResultStore:
    """The runs of a comparison under ``directory``; safe against a kill at any moment.

    Every row is committed (and synced) by itself before the next run's result is taken, so a killed comparison loses at
    most the runs that were not finished. The file is plain sqlite3: ``sqlite3 results.sqlite3 'select * from runs'``.

    Args:
        directory: where; taken once, so that a change of the working directory leads nowhere else.
        create: make it where there is none. Nothing is written to a file that is something else.

    Raises:
        FileNotFoundError: there is no store and ``create`` is false.
        StoreError: here and in every method: no store of this version, damaged, or not to be written to.
    """

    def __init__(self, directory: str | Path, *, create: bool = True) -> None:
        self.directory = Path(directory).absolute()
        self.path = self.directory / FILE_NAME
        if create:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                file = next((each for each in (self.directory, *self.directory.parents) if each.is_file()), None)
                found = f"the folder cannot be made: {error}" if file is None else f"{file} is a file, not a folder"
                raise StoreError(f"{found}; give another --out") from error
        elif not self.path.exists():
            raise FileNotFoundError(
                f"no results in {self.directory}: {FILE_NAME} is not there; run mtopt compare first"
            )
        with self._connected("opening it", create=create) as connection:
            self._check(connection, create=create)

    def _check(self, connection: sqlite3.Connection, *, create: bool) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {row["name"] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables and version == 0:
            if not create:
                raise StoreError(f"{self.path} is empty; run mtopt compare first")
            connection.execute("BEGIN IMMEDIATE")
            for name, columns in _TABLES.items():
                connection.execute(f"CREATE TABLE IF NOT EXISTS {name} {columns}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            return
        columns_of = {
            name: {row["name"] for row in connection.execute(f"PRAGMA table_info({name})")} for name in _COLUMNS
        }
        if version not in (0, SCHEMA_VERSION) and columns_of["runs"]:
            raise StoreError(
                f"{self.path} has format {version}, this mtopt writes {SCHEMA_VERSION}; give another --out"
            )
        if version != SCHEMA_VERSION or columns_of != _COLUMNS:
            raise StoreError(
                f"{self.path} is no result store but a database with the tables {sorted(tables)}; move it away or give "
                "another --out"
            )

    @contextmanager
    def _connected(self, doing: str, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are committed at the end; a file that may only be read can be read."""
        try:
            place = f"{self.path.as_uri()}?mode={'rwc' if create else 'rw'}"
            with closing(sqlite3.connect(place, timeout=60, uri=True)) as connection, connection:
                connection.execute("PRAGMA synchronous = FULL")
                connection.row_factory = sqlite3.Row
                yield connection
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            advice = next((text for kind, text in _ADVICE.items() if name.startswith(kind)), "cannot be used")
            raise StoreError(f"{self.path} {advice} ({doing}: {error})") from error

    @contextmanager
    def held_alone(self) -> Iterator[None]:
        """Keep other comparisons from this folder, which would run all of it a second time.

        Raises:
            InUseError: one is in it.
        """
        try:
            with held_alone(self.directory, "mtopt compare is at work there: wait for its end, or give another --out"):
                yield
        except PermissionError as error:
            if error.filename is None or Path(error.filename).parent != self.directory:
                raise
            raise StoreError(f"{self.directory} may not be written to ({error}); give another --out") from error

    def finished(self) -> set[str]:
        """The keys of the runs that need not run again; failed ones are tried anew."""
        with self._connected("reading the finished runs") as connection:
            return {row["key"] for row in connection.execute("SELECT key FROM runs WHERE status = 'done'")}

    def add(self, run: Run, status: str, result: Mapping[str, Any]) -> None:
        """Keep one finished run, at once."""
        settings = json.dumps(run.hyperparameters), run.learning_rate, run.seed, run.steps, run.points
        now = datetime.now(UTC).isoformat(timespec="seconds")
        row = run.key, run.suite, run.task, run.combiner, *settings, status, json.dumps(result), now
        with self._connected(f"storing run {run.key}, {run}") as connection:
            connection.execute(f"INSERT OR REPLACE INTO runs VALUES ({', '.join('?' * len(row))})", row)

    def all_keys(self) -> list[str]:
        """The keys of all runs, finished and failed."""
        with self._connected("reading the runs") as connection:
            found = [row["key"] for row in connection.execute("SELECT key FROM runs ORDER BY rowid")]
        return self._texts(found, "runs.key")

    def take(self, other: ResultStore) -> tuple[int, dict[str, str]]:
        """Take over the runs and the comparisons of another store; nothing that is here is replaced but failed runs.

        Returns:
            How many runs were taken, and the name that each comparison has here: another one where its own is taken.
        """
        taken = 0
        for key in other.all_keys():
            found = other.results([key])
            if key not in found:
                raise StoreError(f"{other.path} {_ADVICE['SQLITE_CORRUPT']} (run {key} is listed and not to be found)")
            row = found[key]
            here = self.results([key]).get(key)
            if here is None or (here["status"], row["status"]) == ("failed", "done"):
                values = [json.dumps(v) if isinstance(v, dict) else v for v in row.values()]
                with self._connected(f"storing run {key}") as connection:
                    names, marks = ", ".join(row), ", ".join("?" * len(row))
                    connection.execute(f"INSERT OR REPLACE INTO runs ({names}) VALUES ({marks})", values)
                taken += 1
        names_here: dict[str, str] = {}
        for name in other.comparisons():
            request, known = other.request(name), {each: self.request(each) for each in self.comparisons()}
            candidates = (name if n == 1 else f"{name}-{n}" for n in itertools.count(1))
            free = next(each for each in candidates if known.get(each, request) == request)
            self.save_request(free, request)
            names_here[name] = free
        return taken, names_here

    def results(self, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The rows with these keys, results decoded; absent ones are left out."""
        found: dict[str, dict[str, Any]] = {}
        for key in keys:
            with self._connected(f"reading run {key}") as connection:
                row = connection.execute("SELECT * FROM runs WHERE key = ?", (key,)).fetchone()
            if row is not None:
                found[key] = self._decoded(dict(row))
        return found

    def _decoded(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            check_shape(row, ROW, "the row")
            for column in ("hyperparameters", "result"):
                row[column] = parse_json(row[column], f"its {column}", kind=dict, hint="the text is not whole")
            check_shape(row["result"], RESULT if row["status"] == "done" else FAILED, "its result")
        except ValueError as error:
            raise self.bad_row(row["key"], error) from error
        return row

    def bad_row(self, key: str, fault: ValueError) -> StoreError:
        """The error for a run of which nothing can be made."""
        return StoreError(
            f"{self.path}, run {key}: {fault}; the row is damaged or foreign: remove it with "
            f"sqlite3 {self.path} \"DELETE FROM runs WHERE key = '{key}'\" and run the same mtopt compare again"
        )

    def save_request(self, name: str, request: Mapping[str, Any]) -> None:
        """Keep what was compared, so that the report can be made again from the store alone."""
        with self._connected("storing what was compared") as connection:
            connection.execute("INSERT OR REPLACE INTO comparisons VALUES (?, ?)", (name, json.dumps(request)))

    def comparisons(self) -> list[str]:
        """The names of the finished comparisons, the last one last."""
        with self._connected("reading what was compared") as connection:
            found = [row["name"] for row in connection.execute("SELECT name FROM comparisons ORDER BY rowid")]
        return self._texts(found, "comparisons.name")

    def _texts(self, found: list[Any], column: str) -> list[str]:
        try:
            check_shape(found, [str], column)
        except ValueError as error:
            raise StoreError(
                f"{self.path}: {error}; it was written by another program: restore it from a copy"
            ) from error
        return found

    def request(self, name: str) -> dict[str, Any]:
        """What was compared under that name.

        Raises:
            UnknownNameError: no comparison of that name is finished.
        """
        with self._connected("reading what was compared") as connection:
            row = connection.execute("SELECT request FROM comparisons WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise unknown_name(f"comparison in {self.directory}", name, self.comparisons())
        try:
            check_shape(row["request"], str, "the request")
            request: dict[str, Any] = parse_json(row["request"], "the request", kind=dict, hint="the text is not whole")
            check_shape(request, REQUEST, "the request")
            check_request(request)
        except ValueError as error:
            raise StoreError(
                f"{self.path}, comparisons.request: {error}; run the same mtopt compare again, which writes it anew"
            ) from error
        return request
