"""A comparison as tables, for other programs: runs, their points, their loss curves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtopt._text import csv_text
from mtopt.experiments._results import Cell, Results
from mtopt.files import write_bytes, write_text

Row = dict[str, Any]


def export(comparison: Results, directory: Path, format: str) -> list[Path]:
    """Write ``runs``, ``points`` and ``curves`` to a folder, each row with the key of its run."""
    if format not in ("csv", "parquet"):
        raise ValueError(f"format must be 'csv' or 'parquet', found {format!r}")
    runs = [(cell, stage, row) for cell in comparison.cells for stage, row in _rows(comparison, cell)]
    tables = {
        "runs": [_run(*each) for each in runs],
        "points": [point for cell, _, row in runs for point in _points(cell, row)],
        "curves": [part for cell, _, row in runs for part in _curves(cell, row)],
    }
    write = _csv if format == "csv" else _parquet
    return [write(rows, directory / f"{name}.{format}") for name, rows in tables.items()]


def _rows(comparison: Results, cell: Cell) -> Iterator[tuple[str, Row]]:
    (entry,) = (
        each for each in comparison.request["cells"] if (each["suite"], each["task"], each["combiner"]) == cell.key
    )
    for stage in ("tune", "final"):
        for row in comparison.store.results(entry[stage]).values():
            yield stage, row


def _run(cell: Cell, stage: str, row: Mapping[str, Any]) -> Row:
    """One run: what it was, what it came to, what it cost, what it was made with."""
    result = row["result"]
    score, cost, made = result.get("score", {}), result.get("cost", {}), result.get("environment", {})
    passes = cost.get("backwards_per_step")
    return {
        **dict(zip(("suite", "task", "contestant"), cell.key, strict=True)),
        "stage": stage,
        "combiner": row["combiner"],
        "hyperparameters": json.dumps(row["hyperparameters"]),
        "options": json.dumps(cell.options),
        **{name: row[name] for name in ("learning_rate", "seed", "steps", "points", "status")},
        "error": result.get("error"),
        "nonfinite": result.get("nonfinite"),
        **{f"hypervolume_{split}": score.get(split) for split in ("validation", "test")},
        "metrics": json.dumps(result.get("metrics")),
        "cpu_seconds": cost.get("cpu_seconds"),
        "backward_passes": None if passes is None else passes * cost["steps"],
        "peak_bytes": cost.get("peak_bytes"),
        **{name: result.get(name) for name in ("skipped", "conflict_rate", "cosine")},
        **{name: made.get(name) for name in ("mtopt", "code", "torch", "numpy", "scipy", "python")},
        **{name: made.get(name) for name in ("machine", "system", "device")},
        "task_code": made.get("task"),
        "finished": row["finished"],
        "key": row["key"],
    }


def _points(cell: Cell, row: Mapping[str, Any]) -> Iterator[Row]:
    """One value of one objective, in its own sense: what is maximised is stored with its sign flipped."""
    for split, points in row["result"].get("points", {}).items():
        for number, point in enumerate(points):
            for objective, value in zip(cell.task["objectives"], point, strict=True):
                own = -value if objective["sense"] == "max" else value
                yield {"key": row["key"], "split": split, "point": number, "objective": objective["name"], "value": own}


def _curves(cell: Cell, row: Mapping[str, Any]) -> Iterator[Row]:
    """The mean of one loss over the steps that end at ``step``."""
    for number, curve in enumerate(row["result"].get("curves", ())):
        for name, values in curve.items():
            for step, value in zip(curve["step"], values, strict=True) if name != "step" else ():
                yield {"key": row["key"], "training": number, "step": step, "loss": name, "value": value}


def _csv(rows: Sequence[Row], path: Path) -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows({k: csv_text(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)
    return write_text(path, text.getvalue())


def _parquet(rows: Sequence[Row], path: Path) -> Path:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError("format 'parquet' needs pyarrow: pip install 'mtopt[parquet]'") from error
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), buffer)
    return write_bytes(path, buffer.getvalue())
