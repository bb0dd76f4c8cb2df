"""What a task says is checked when it comes: before the first run, and after the first values."""

from __future__ import annotations

import inspect
import json
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mtopt._errors import TaskError
from mtopt._losses import Objective
from mtopt.experiments._shapes import TASK as SHAPE
from mtopt.experiments._shapes import check_shape
from mtopt.experiments._task import Budget, Task
from mtopt.files import parse_json
from mtopt.training import MultiLossTrainer


def check_declared(task: Task) -> None:
    """Check what the plan and the report are made from, before hours are spent.

    Raises:
        ValueError: what is declared fits no comparison; the message names the task and the attribute.
    """
    where = f"task {getattr(task, 'name', type(task).__name__)!r}"
    for name in ("name", "objectives", "reference_point", "budget", "quick_budget"):
        if not hasattr(task, name):
            raise ValueError(f"{where} ({type(task).__name__}) declares no {name}; see mtopt.experiments.Task")
    if not isinstance(task.name, str) or not task.name:
        raise ValueError(f"{where}: name must be a text that is not empty, found {task.name!r}")
    objectives = task.objectives
    if not isinstance(objectives, Sequence) or not all(isinstance(o, Objective) for o in objectives):
        raise ValueError(f"{where}: objectives must be a tuple of mtopt.Objective, found {objectives!r}")
    names = [objective.name for objective in objectives]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(f"{where}: objectives must be two or more with distinct names, found {names}")
    point = [read_number(value, f"{where}: reference_point") for value in _items(task.reference_point)]
    if len(point) != len(names) or not all(map(math.isfinite, point)):
        raise ValueError(
            f"{where}: reference_point must be {len(names)} finite numbers, found {task.reference_point!r}"
        )
    rates = [read_number(value, f"{where}: learning_rates") for value in _items(task.learning_rates)]
    if len(rates) != 2 or not 0 < rates[0] <= rates[1] < math.inf:
        raise ValueError(f"{where}: learning_rates must be the two ends of a range, found {task.learning_rates!r}")
    for name in ("budget", "quick_budget"):
        if not isinstance(getattr(task, name), Budget):
            raise ValueError(f"{where}: {name} must be a Budget, found {getattr(task, name)!r}")
    if task.labels and len(task.labels) != len(names):
        raise ValueError(f"{where}: labels must be one for each of {names}, found {task.labels!r}")


def describe(task: Task) -> dict[str, Any]:
    """``task.describe()``, fit for the store.

    Raises:
        TaskError: the task's code raised an exception.
        ValueError: it says what no report can be made of.
    """
    try:
        told = task.describe()
    except (ValueError, TypeError, LookupError, OSError) as error:  # elsewhere these are a user's wrong use
        raise TaskError(f"task {task.name!r} cannot be described: {type(error).__name__}: {error}") from error
    try:
        told = parse_json(json.dumps(told, default=_plain), f"what task {task.name!r} describes")
        check_shape(told, SHAPE, "it")
        width = len(task.objectives)
        if told["front"] is not None and any(len(row) != width for row in told["front"]):
            raise ValueError(f"its front must be (points, {width})")
        if told["front_hypervolume"] is not None and not 0 < told["front_hypervolume"] < math.inf:
            raise ValueError(f"its front_hypervolume must be positive, found {told['front_hypervolume']}")
        if any(len(view) != 2 for view in told["views"]):
            raise ValueError(f"its views must be pairs of names, found {told['views']}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"task {task.name!r}: describe() is not what a report is made of: {error}") from error
    return dict(told)


def read_trainer(found: Any, task: Task) -> MultiLossTrainer:
    """What ``task.trainer`` returned."""
    if not isinstance(found, MultiLossTrainer):
        raise TypeError(f"trainer of task {task.name!r} must return a MultiLossTrainer, found {_shown(found)}")
    return found


def take_values(task: Task, trainer: MultiLossTrainer, split: str, seed: int) -> dict[str, float]:
    """What ``task.values`` gives for a split: plain numbers, each objective among them."""
    known = inspect.signature(task.values).parameters.values()
    takes_seed = any(each.name == "seed" or each.kind is inspect.Parameter.VAR_KEYWORD for each in known)
    found: Any = task.values(trainer, split, **({"seed": seed} if takes_seed else {}))
    values = read_named(found, f"values of task {task.name!r} on the {split} split ({place_of_values(task)})")
    missing = [objective.name for objective in task.objectives if objective.name not in values]
    if "step" in values:
        raise ValueError(
            f"values of task {task.name!r} ({place_of_values(task)}) name 'step', which the steps have; give another"
        )
    if missing:
        raise ValueError(
            f"values of task {task.name!r} on the {split} split ({place_of_values(task)}) lack {missing}, found "
            f"{list(values)}"
        )
    return values


def place_of_values(task: Task) -> str:
    """Where the task's code of ``values`` is: ``MyTask.values, my_suite.py:12``."""
    name = f"{type(task).__name__}.values"
    code = getattr(inspect.unwrap(type(task).values), "__code__", None)
    return name if code is None else f"{name}, {code.co_filename}:{code.co_firstlineno}"


def tell_nonfinite(values: Sequence[Mapping[str, float]], task: Task) -> str | None:
    """``'near' is nan in 2 of 10 points on the test split (MyTask.values, ...)``; None where all are finite."""
    told = []
    for objective in task.objectives:
        wrong = [v[objective.name] for v in values if not math.isfinite(v[objective.name])]
        if wrong:
            often = f" in {len(wrong)} of {len(values)} points" if len(values) > 1 else ""
            told.append(f"{objective.name!r} is {wrong[0]}{often}")
    return f"{', '.join(told)} on the test split ({place_of_values(task)})" if told else None


def check_even(runs: Iterable[Mapping[str, Any]], task: Task, split: str) -> None:
    """Check that all values of a run have the same names: means and paths are made of them."""
    names = [list(values) for values in runs]
    other = next((each for each in names if set(each) != set(names[0])), None)
    if other is not None:
        raise ValueError(
            f"values of task {task.name!r} on the {split} split must have the same names each time, found {names[0]} "
            f"and {other}; give NaN for what is not there"
        )


def check_views(values: Mapping[str, float], landmarks: Mapping[str, Mapping[str, float]], task: Task) -> None:
    """Check that what paths are drawn in is there, for the values and for the landmarks."""
    for name in {name for view in task.views for name in view}:
        for where, known in (("values", values), *((f"the landmark {mark!r}", landmarks[mark]) for mark in landmarks)):
            if name not in known:
                raise ValueError(f"views of task {task.name!r} name {name!r}, and {where} have {list(known)}")
    if task.start is not None and task.start not in landmarks:
        raise ValueError(f"start of task {task.name!r} is {task.start!r}, and its landmarks are {list(landmarks)}")


def read_named(found: Any, where: str) -> dict[str, float]:
    """A mapping from names to numbers, as plain floats."""
    if not isinstance(found, Mapping):
        raise TypeError(f"{where} must be a mapping from names to numbers, found {_shown(found)}")
    wrong = next((name for name in found if not isinstance(name, str)), None)
    if wrong is not None:
        raise TypeError(f"{where} must have texts for names, found {wrong!r}")
    return {name: read_number(value, f"{where}, {name!r},") for name, value in found.items()}


def read_number(value: Any, where: str) -> float:
    """A real number as a float: Python's, numpy's, or a tensor or array of one element."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
        elements = value.numel() if isinstance(value, torch.Tensor) else value.size
        if elements == 1:
            value = value.item()
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{where} must be a real number, found {_shown(value)}")
    return float(value)


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Sequence | np.ndarray | torch.Tensor) else [value]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"found {_shown(value)}")


def _shown(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"a {type(value).__name__}: {value!r}"[:80] if shape is None else f"a {type(value).__name__} {tuple(shape)}"
