"""The multi-task literature's one-number summaries of many metrics."""

from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtopt._real_numbers import as_real
from mtopt.pareto._inputs import Points, Vector, as_vector


def delta_m(
    values: Vector,
    baselines: Vector,
    higher_is_better: Sequence[bool],
    average: Literal["metric", "task"] = "metric",
    tasks: Sequence[Hashable] | None = None,
) -> float:
    """Average relative loss against single-task baselines in percent. **Lower is better**, negative is a gain.

    100 mean_m s_m (M_m - B_m) / |B_m|, with s_m = -1 where a higher M_m is better and +1 otherwise. The sign is that
    of the CAGrad, Nash-MTL and FAMO papers; LibMTL's Delta_p has the opposite one. The papers divide by B_m, which is
    the same for their positive metrics; with |B_m| a negative metric (a log-likelihood) keeps its direction too.

    The mean is over metrics, as in those papers, or first over the metrics of each task and then over tasks, as in
    LibMTL. The choice can reverse a conclusion: on NYUv2 (1, 2 and 5 metrics a task) equal weights lose 5.6 % by
    metric and gain 0.9 % by task. Report which.

    Args:
        values: (M,) the metrics of the method, in their own units.
        baselines: (M,) the same metrics of the single-task models; none may be zero.
        higher_is_better: (M,) booleans.
        average: "metric" or "task".
        tasks: (M,) the task of each metric, any labels; needed for average="task" and only then.

    Raises:
        ValueError: shapes that differ, NaN or infinity, a zero baseline, or `tasks` missing or superfluous.
    """
    if average not in ("metric", "task"):
        raise ValueError(f"average must be 'metric' or 'task', found {average!r}")
    shape = as_real("values", values).shape
    if len(shape) != 1 or shape[0] == 0:
        raise ValueError(f"values must have shape (M,) with M >= 1, found shape {shape}")
    metrics = as_vector("values", values, shape[0], "metric")
    bases = as_vector("baselines", baselines, shape[0], "metric of values")
    if (bases == 0).any():
        raise ValueError(
            f"baselines must not be zero (entry {int(np.flatnonzero(bases == 0)[0])} is): "
            "a change relative to zero is undefined, leave the metric out"
        )
    better_high = np.asarray(higher_is_better)
    if better_high.shape != shape or better_high.dtype != np.bool_:
        raise ValueError(
            f"higher_is_better must be {shape[0]} booleans, one for each metric of values, found {higher_is_better!r}"
        )
    changes = np.where(better_high, -1.0, 1.0) * (metrics - bases) / np.abs(bases)
    if average == "metric":
        if tasks is not None:
            raise ValueError("tasks is used by average='task' only: pass that, or leave tasks out")
        return float(100 * changes.mean())
    if tasks is None or len(tasks) != shape[0]:
        found = "None" if tasks is None else f"{len(tasks)} entries"
        raise ValueError(f"tasks must name the task of each of the {shape[0]} metrics, found {found}")
    by_task: dict[Hashable, list[float]] = {}
    for task, change in zip(tasks, changes.tolist(), strict=True):
        by_task.setdefault(task, []).append(change)
    return float(100 * np.mean([np.mean(group) for group in by_task.values()]))


def mean_rank(values: Points, higher_is_better: Sequence[bool]) -> NDArray[np.float64]:
    """The mean over the metrics of each method's rank among the methods, (methods,): 1 is best on all of them.

    Equal values share the mean of their ranks. A rank says nothing of by how much, and changes when a method is
    added to the table: show it beside `delta_m`. A NaN, a run that failed, ranks last in its metric.

    Args:
        values: (methods, M) metrics.
        higher_is_better: (M,) booleans.

    Raises:
        ValueError: `values` is not a non-empty table, or the booleans are not one for each of its columns.
    """
    from scipy.stats import rankdata

    table = as_real("values", values)
    if table.ndim != 2 or table.size == 0:
        raise ValueError(f"values must have shape (methods, M), one method per row, found shape {table.shape}")
    better_high = np.asarray(higher_is_better)
    if better_high.shape != (table.shape[1],) or better_high.dtype != np.bool_:
        raise ValueError(
            f"higher_is_better must be {table.shape[1]} booleans, one for each metric of values, "
            f"found {higher_is_better!r}"
        )
    costs = np.where(better_high, -table, table)
    costs[np.isnan(costs)] = np.inf
    return np.asarray(rankdata(costs, axis=0).mean(axis=1))
