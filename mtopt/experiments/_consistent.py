"""Whether what a store holds goes together: a request's parts with each other, a result with the task it is of.

Shapes are checked before (:mod:`mtopt.experiments._shapes`); of values of the right kind a report can still not be made
where a point has one number too many.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mtopt.experiments._baseline import BASELINE
from mtopt.experiments._shapes import Number, check_shape


def check_task(told: Mapping[str, Any]) -> None:
    """Check the parts of what a task says of itself.

    Raises:
        ValueError: two of them do not go together; the message names them.
    """
    names = [objective["name"] for objective in told["objectives"]]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"its objectives must be two or more with distinct names, found {names}")
    for objective in told["objectives"]:
        if objective["sense"] not in ("min", "max"):
            raise ValueError(
                f"its objective {objective['name']!r} must be 'min' or 'max', found {objective['sense']!r}"
            )
    for part in ("labels", "reference_point"):
        _check_length(told[part], len(names), f"its {part}")
    _check_length(told["position_labels"], 2, "its position_labels")
    rates = told["learning_rates"]
    _check_length(rates, 2, "its learning_rates")
    if not all(map(math.isfinite, [*rates, *told["reference_point"]])):
        raise ValueError(
            f"its learning_rates and reference_point must be finite, found {rates} and {told['reference_point']}"
        )
    if told["front"] is not None:
        if not told["front"]:
            raise ValueError("its front must have a point, or be null")
        for row in told["front"]:
            _check_length(row, len(names), "a point of its front")
    whole = told["front_hypervolume"]
    if whole is not None and not 0 < whole < math.inf:
        raise ValueError(f"its front_hypervolume must be positive, found {whole}")
    for view in told["views"]:
        _check_length(view, 2, "each of its views")
    if told["landscape"] is not None:
        _check_landscape(told["landscape"])


def _check_landscape(land: Mapping[str, Any]) -> None:
    for axis in ("x", "y"):
        places = land[axis]
        if len(places) < 2 or not all(a < b < math.inf for a, b in itertools.pairwise(places)):
            raise ValueError(f"its landscape's {axis} must be two numbers or more that increase, found {places!s:.60}")
    _check_length(land["z"], len(land["x"]), "its landscape's z")
    for row in land["z"]:
        _check_length(row, len(land["y"]), "a row of its landscape's z")
    for point in land["pareto_set"]:
        _check_length(point, 2, "a point of its landscape's pareto_set")


def check_request(request: Mapping[str, Any]) -> None:
    """Check the parts of what was compared.

    Raises:
        ValueError: two of them do not go together; the message names them.
    """
    tasks = [(suite["name"], task["name"]) for suite in request["suites"] for task in suite["tasks"]]
    _check_distinct(tasks, "the request's tasks")
    for suite in request["suites"]:
        for task in suite["tasks"]:
            try:
                check_task(task)
            except ValueError as error:
                raise ValueError(f"the request's task {suite['name']}/{task['name']}: {error}") from error
    for part in ("cells", "budgets"):
        for entry in request[part]:
            if (entry["suite"], entry["task"]) not in tasks:
                raise ValueError(f"the request's {part} name the task {entry['suite']}/{entry['task']}, which it lacks")
    cells = [(cell["suite"], cell["task"], cell["combiner"]) for cell in request["cells"]]
    if not cells:
        raise ValueError("the request has no cells")
    _check_distinct(cells, "the request's cells")
    for suite_name, name in tasks:
        if (suite_name, name, BASELINE) not in cells:
            raise ValueError(f"the request's cells lack {BASELINE}, the baseline, on the task {suite_name}/{name}")


def check_result(row: Mapping[str, Any], task: Mapping[str, Any]) -> None:
    """Check a finished run against the task that it is of.

    Raises:
        ValueError: they do not go together; the message names the part.
    """
    result, count = row["result"], len(task["objectives"])
    for split, points in result["points"].items():
        if not points:
            raise ValueError(f"its result has no points on the {split} split")
        for point in points:
            _check_length(point, count, f"a point of its result on the {split} split")
    _check_columns(result, task)
    _check_landmarks(result, task)
    if task["landscape"] is not None:
        for position in (position for path in result["positions"] for position in path):
            _check_length(position, 2, "a position of its result")
    weights = row["hyperparameters"].get("preference") if row["combiner"] == BASELINE else None
    if weights is not None:
        check_shape(weights, [Number], "its hyperparameters['preference']")
    if not 0 <= result["cost"]["steps"] < math.inf:
        raise ValueError(f"its result's cost must have steps from 0 on, found {result['cost']['steps']}")


def _check_columns(result: Mapping[str, Any], task: Mapping[str, Any]) -> None:
    _check_even(result["metrics"], "its result's metrics")
    names = [objective["name"] for objective in task["objectives"]]
    for path in result["paths"]:
        _check_even(path, "a path of its result", ("step", *names, *(name for view in task["views"] for name in view)))
        if len(path["step"]) != len(result["paths"][0]["step"]):
            raise ValueError("the paths of its result must have as many steps each")
    if not result["curves"]:
        raise ValueError("its result has no curves")
    for curve in result["curves"]:
        _check_even(curve, "a curve of its result", ("step",))
        if len(curve) < 2 or None in curve["step"]:
            raise ValueError(f"a curve of its result must have a loss at each step, found {list(curve)}")


def _check_landmarks(result: Mapping[str, Any], task: Mapping[str, Any]) -> None:
    marks = result["landmarks"]
    if result["paths"] and task["start"] is not None and task["start"] not in marks:
        raise ValueError(f"its result's landmarks lack the start {task['start']!r}")
    for view in task["views"] if result["paths"] else ():
        for name, mark in marks.items():
            if lacking := [axis for axis in view if axis not in mark]:
                raise ValueError(f"its result's landmark {name!r} lacks {lacking}, which a view has")


def check_alike(row: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Check that two runs of a task have evaluations as many, of which means are made and paths are drawn.

    Raises:
        ValueError: they have not.
    """
    here, there = ([len(path["step"]) for path in each["result"]["paths"]] for each in (row, other))
    if here[:1] != there[:1]:
        raise ValueError(
            f"its result has {here[:1] or 'no'} evaluations, and the run {other['key']} {there[:1] or 'none'}"
        )


def _check_even(columns: Mapping[str, Sequence[Any]], where: str, needed: Sequence[str] = ()) -> None:
    if lacking := [name for name in needed if name not in columns]:
        raise ValueError(f"{where} lacks {lacking}")
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"{where} must have equally many values for each name, at least one, found {sorted(lengths)}")


def _check_length(values: Sequence[Any], count: int, where: str) -> None:
    if len(values) != count:
        raise ValueError(f"{where} must be {count}, found {len(values)}")


def _check_distinct(names: Sequence[tuple[str, ...]], where: str) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{where} must be distinct, found {'/'.join(twice[0])} twice")
