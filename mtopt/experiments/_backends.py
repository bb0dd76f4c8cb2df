"""Where runs are made: processes of this machine, or a cluster."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from mtopt._errors import unknown_name
from mtopt.experiments._clusters import DaskCluster, RayCluster
from mtopt.experiments._processes import Call, Processes, call_and_end_with

BACKENDS = {"loky": "joblib", "dask": "distributed", "ray": "ray"}
"""Names of backends, and the package that each needs."""


class Pool(Protocol):
    """Makes calls somewhere, each in a process that may be killed without the others."""

    def each(self, calls: Sequence[Call]) -> Iterator[tuple[Any, Any]]:
        """``(label, function(*arguments))`` of each ``(function, label, *arguments)``, in the order that they end."""

    def close(self) -> None:
        """End what was started."""


def check_backend(name: str | None) -> None:
    """Raise UnknownNameError for a backend that there is not, and ValueError for one whose package is missing."""
    if name is None:
        return
    if name not in BACKENDS:
        raise unknown_name("backend", name, BACKENDS)
    if importlib.util.find_spec(BACKENDS[name]) is None:
        raise ValueError(f"backend {name!r} needs {BACKENDS[name]}: pip install 'mtopt[{name}]'")


def open_pool(backend: str | None, jobs: int | None) -> Pool:
    """The pool of that backend; by default processes, or what ``joblib.parallel_config`` names around the call."""
    from joblib import effective_n_jobs
    from joblib.parallel import LokyBackend, get_active_backend

    if backend == "dask":
        return DaskCluster(jobs)
    if backend == "ray":
        return RayCluster(jobs)
    count = -1 if jobs is None else jobs
    if backend == "loky":
        return Processes((os.cpu_count() or 1) if jobs is None else jobs)
    if isinstance(get_active_backend()[0], LokyBackend):  # joblib's default: no cluster was asked for
        return Processes(effective_n_jobs(count))
    return _JoblibBackend(count)


class _JoblibBackend:
    """The backend of the ``joblib.parallel_config`` around."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs

    def each(self, calls: Sequence[Call]) -> Iterator[tuple[Any, Any]]:
        from joblib import Parallel, delayed

        # batch_size: joblib would hand over several short ones together, and a kill loses those that were finished
        parallel = Parallel(n_jobs=self._jobs, return_as="generator_unordered", batch_size=1)
        yield from parallel(delayed(_labelled)(os.getpid(), *call) for call in calls)

    def close(self) -> None:
        """Nothing was started here."""


def _labelled(parent: int, function: Any, label: Any, *arguments: Any) -> tuple[Any, Any]:
    return label, call_and_end_with(parent, function, *arguments)
