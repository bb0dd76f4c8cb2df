"""Tracing a front: one training run for each preference."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mtopt._real_numbers import as_real
from mtopt.pareto._inputs import Points, Vector, as_points
from mtopt.pareto._models import State, model_file, packed, read_state, unpacked, write_state
from mtopt.pareto.front import Front


def trace_front(
    train: Callable[[torch.Tensor], Vector | tuple[Vector, Any]] | Callable[[torch.Tensor, Any], tuple[Vector, Any]],
    preferences: Points,
    *,
    warm_start: bool = False,
    jobs: int = 1,
    models: Literal["memory"] | os.PathLike[str] | None = None,
    names: Iterable[str] | None = None,
) -> Front:
    """Run `train` once for each preference, and collect where each run ended.

    Args:
        train: called with one preference, (K,) float64; trains a model from its start and returns the K objective
            values that it reached, minimised, as a tensor or a sequence. NaN or infinity is kept, as a diverged run.
        preferences: (N, K), rows non-negative and summing to one; from `uniform_preferences` or `das_dennis`.
        warm_start: start each run where the one before it ended. `train` is then called with a preference and a
            state, and returns the values and its own state: whatever it needs to go on from, such as a copy of the
            parameters. The state is None in the first run; afterwards that of the nearest preference trained so far
            (the last of equally near ones), whose run did not diverge. Along `uniform_preferences` of two objectives
            that is the run before.
        jobs: how many runs at a time, in processes of joblib; -1 for one per core. `train` must be picklable then, and
            is called as in turn: where it seeds the generators that it draws from, and takes no state from one call
            to the next, the result is the same for any number of jobs. (Each process computes with as many torch
            threads as this one, which with more than one per core is slow: call `torch.set_num_threads(1)` before.)
            Within `joblib.parallel_config(backend=...)` the runs go to that backend.
        models: keep each run's model, for `Front.load`: `"memory"`, or a folder (a `Path`), to which each is written
            when its run ends. `train` then returns a pair, the values and the model, or its `state_dict()`. Default:
            none is kept.
        names: of the objectives, for figures. Default: none.

    Raises:
        ValueError: `preferences` has a wrong shape or a row that is no preference; `train` returned something other
            than K values (said at once, not after the last run); `jobs` is zero; or more than one job with
            `warm_start`, whose runs wait for each other.
        TypeError: with `warm_start` or `models`, `train` did not return a pair, or no model in it.
    """
    rows = torch.tensor(as_points("preferences", preferences))
    bad = torch.nonzero((rows < 0).any(dim=1) | ((rows.sum(dim=1) - 1).abs() > 1e-6))
    if len(bad):
        row = int(bad[0])
        raise ValueError(
            f"preferences must be non-negative and sum to one in every row, found {rows[row].tolist()} in row {row}; "
            "divide each row by its sum"
        )
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs == 0:
        raise ValueError(f"jobs must be a number of processes, or -1 for one per core, found {jobs!r}")
    if warm_start and jobs != 1:
        raise ValueError(
            f"warm_start=True starts each run where another one ended, so jobs must be 1, found {jobs}; leave one out"
        )
    if models is not None and models != "memory" and not isinstance(models, os.PathLike):
        raise ValueError(f"models must be None, 'memory' or a pathlib.Path, found {models!r}")
    keeper = _Keeper(models)
    if warm_start:
        results = list(_one_from_another(train, rows, keeper))
    elif jobs == 1:
        results = [_run(train, preference, keeper, index) for index, preference in enumerate(rows)]
    else:
        results = _at_once(train, rows, jobs, keeper)
    kept = None if models is None else tuple(model for _, model in results)
    front = Front(
        rows, torch.stack([values for values, _ in results]), None if names is None else tuple(names), models=kept
    )
    if isinstance(models, os.PathLike):
        front.save(models)
    return front


class _Keeper:
    """Where the models of the runs go."""

    def __init__(self, place: Literal["memory"] | os.PathLike[str] | None) -> None:
        self.folder = Path(place) if isinstance(place, os.PathLike) else None
        self.keeps = place is not None

    def keep(self, model: Any, index: int) -> State | Path | None:
        """What a front holds of run ``index``'s model."""
        if not self.keeps:
            return None
        state = read_state(model)
        if self.folder is None:
            return state
        path = self.folder / model_file(index)
        write_state(path, state)
        return path


_Result = tuple[torch.Tensor, State | Path | None]


def _run(train: Callable[..., Any], preference: torch.Tensor, keeper: _Keeper, index: int) -> _Result:
    # a copy: a train that scales its preference in place must not change the record
    result = train(preference.clone())
    if not keeper.keeps:
        return _values_of(result, preference), None
    values, model = _pair(result, "models", "the model")
    return _values_of(values, preference), keeper.keep(model, index)


def _pair(result: Any, argument: str, second: str) -> tuple[Any, Any]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"with {argument}, train must return a pair, the objective values and {second}, found "
            f"{type(result).__name__}"
        )
    return result


def _values_of(result: Any, preference: torch.Tensor) -> torch.Tensor:
    values = as_real("the result of train", result)
    if values.shape != preference.shape:
        raise ValueError(
            f"train must return {len(preference)} objective values, one for each entry of its preference, "
            f"found shape {values.shape} for preference {preference.tolist()}"
        )
    return torch.from_numpy(np.array(values))


def _one_from_another(train: Callable[..., Any], rows: torch.Tensor, keeper: _Keeper) -> Iterator[_Result]:
    states: list[Any] = []
    ended: list[int] = []  # the runs that states belong to
    for index, preference in enumerate(rows):
        state = None
        if ended:
            distances = (rows[ended] - preference).norm(dim=1)
            nearest = torch.nonzero(distances <= distances.min() + 1e-9).flatten()  # even steps tie but for rounding
            state = states[int(nearest[-1])]
        found, after = _pair(
            train(preference.clone(), state), "warm_start=True", "the state that another run starts from"
        )
        values = _values_of(found, preference)
        yield values, keeper.keep(after, index)
        if values.isfinite().all():
            states.append(after)
            ended.append(index)


def _at_once(train: Callable[..., Any], rows: torch.Tensor, jobs: int, keeper: _Keeper) -> list[_Result]:
    from joblib import Parallel, delayed

    threads = torch.get_num_threads()
    found = Parallel(n_jobs=jobs)(
        delayed(_run_alike)(threads, train, preference, keeper, index) for index, preference in enumerate(rows.numpy())
    )
    return [
        (torch.from_numpy(values), unpacked(model) if isinstance(model, bytes) else model) for values, model in found
    ]


def _run_alike(
    threads: int, train: Callable[..., Any], preference: NDArray[np.float64], keeper: _Keeper, index: int
) -> tuple[NDArray[np.float64], bytes | Path | None]:
    """A run in another process. Arrays and bytes travel: tensors would go through shared memory."""
    torch.set_num_threads(threads)  # the same sums in the same order, whichever process computes them
    values, model = _run(train, torch.tensor(preference), keeper, index)
    return values.numpy(), packed(model) if isinstance(model, dict) else model
