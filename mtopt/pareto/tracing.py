"""Tracing a front: one training run for each preference."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mtopt._real_numbers import as_real
from mtopt.pareto._inputs import Points, Vector, as_points
from mtopt.pareto.dominance import hypervolume, is_nondominated


@dataclass(frozen=True, eq=False)
class Front:
    """What a set of preferences led to. Both tensors are float64 on the CPU, row i of one belonging to row i of the
    other.

    A row of `points` with NaN or infinity (a run that diverged) is kept, and counts as dominated.
    """

    preferences: torch.Tensor
    """(N, K)."""

    points: torch.Tensor
    """(N, K) objective values, minimised."""

    def nondominated(self) -> torch.Tensor:
        """Which points are finite and dominated by no other, (N,) bool; see `is_nondominated`."""
        mask = self.points.isfinite().all(dim=1)
        if mask.any():
            mask[mask.clone()] = is_nondominated(self.points[mask])
        return mask

    def hypervolume(self, reference: Vector) -> float:
        """Hypervolume of the finite points, 0.0 where there are none; see `hypervolume`."""
        finite = self.points[self.points.isfinite().all(dim=1)]
        if len(finite) == 0:
            return 0.0
        return hypervolume(finite, reference)

    def __len__(self) -> int:
        return len(self.points)


def trace_front(
    train: Callable[[torch.Tensor], Vector] | Callable[[torch.Tensor, Any], tuple[Vector, Any]],
    preferences: Points,
    *,
    warm_start: bool = False,
    jobs: int = 1,
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
        jobs: how many runs at a time, in processes of joblib; -1 for one a core. `train` must be picklable then, and
            is called as in turn: where it seeds the generators that it draws from, and takes no state from one call
            to the next, the result is the same for any number of jobs. (Each process computes with as many torch
            threads as this one, which at more than one a core is slow: call `torch.set_num_threads(1)` before.)
            Within `joblib.parallel_config(backend=...)` the runs go to that backend.

    Raises:
        ValueError: `preferences` has a wrong shape or a row that is no preference; `train` returned something other
            than K values (said at once, not after the last run); `jobs` is zero; or more than one job with
            `warm_start`, whose runs wait for each other.
        TypeError: with `warm_start`, `train` did not return a pair.
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
        raise ValueError(f"jobs must be a number of processes, or -1 for one a core, found {jobs!r}")
    if warm_start and jobs != 1:
        raise ValueError(
            f"warm_start=True starts each run where another one ended, so jobs must be 1, found {jobs}; leave one out"
        )
    results: Iterable[torch.Tensor]
    if warm_start:
        results = _one_from_another(train, rows)
    elif jobs == 1:
        results = (_run(train, preference) for preference in rows)
    else:
        results = _at_once(train, rows, jobs)
    return Front(rows, torch.stack(list(results)))


def _run(train: Callable[..., Any], preference: torch.Tensor) -> torch.Tensor:
    # a copy: a train that scales its preference in place must not change the record
    return _values_of(train(preference.clone()), preference)


def _values_of(result: Any, preference: torch.Tensor) -> torch.Tensor:
    values = as_real("the result of train", result)
    if values.shape != preference.shape:
        raise ValueError(
            f"train must return {len(preference)} objective values, one for each entry of its preference, "
            f"found shape {values.shape} for preference {preference.tolist()}"
        )
    return torch.from_numpy(np.array(values))


def _one_from_another(train: Callable[..., Any], rows: torch.Tensor) -> Iterator[torch.Tensor]:
    states: list[Any] = []
    ended: list[int] = []  # the runs that states belong to
    for index, preference in enumerate(rows):
        state = None
        if ended:
            distances = (rows[ended] - preference).norm(dim=1)
            nearest = torch.nonzero(distances <= distances.min() + 1e-9).flatten()  # even steps tie but for rounding
            state = states[int(nearest[-1])]
        result = train(preference.clone(), state)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                "with warm_start=True, train must return a pair, the objective values and the state that another run "
                f"starts from, found {type(result).__name__}"
            )
        values = _values_of(result[0], preference)
        yield values
        if values.isfinite().all():
            states.append(result[1])
            ended.append(index)


def _at_once(train: Callable[..., Any], rows: torch.Tensor, jobs: int) -> list[torch.Tensor]:
    from joblib import Parallel, delayed

    threads = torch.get_num_threads()
    found = Parallel(n_jobs=jobs)(delayed(_run_alike)(threads, train, preference) for preference in rows.numpy())
    return [torch.from_numpy(values) for values in found]


def _run_alike(threads: int, train: Callable[..., Any], preference: NDArray[np.float64]) -> NDArray[np.float64]:
    """A run in another process. Arrays travel: tensors would go through shared memory."""
    torch.set_num_threads(threads)  # the same sums in the same order, whichever process computes them
    return _run(train, torch.tensor(preference)).numpy()
