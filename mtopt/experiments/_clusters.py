"""Calls on a cluster of Dask or Ray, which makes a call again whose worker was killed."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from mtopt.experiments._failure import describe_error, describe_killed
from mtopt.experiments._processes import ATTEMPTS, Call, call_and_end_with


class Cluster(ABC):
    """Workers elsewhere; this process alone takes their answers, and stores them."""

    def each(self, calls: Sequence[Call]) -> Iterator[tuple[Any, Any]]:
        """``(label, function(*arguments))`` of each ``(function, label, *arguments)``, in the order that they end.

        The cluster makes a call again whose worker was killed, until it gives it up. What it gave up is made once more
        at the end, alone: a worker may have died of another call that was there. Given up again, it has what
        :func:`mtopt.experiments._failure.attempt` keeps of a failure.
        """
        waiting, suspects = deque(calls), deque[Call]()
        running: dict[Any, tuple[Call, bool]] = {}
        while waiting or suspects or running:
            while waiting and len(running) < self._limit():
                call = waiting.popleft()
                running[self._start(call)] = call, False
            if not running:
                call = suspects.popleft()
                running[self._start(call)] = call, True
            for done in self._wait(list(running)):
                call, alone = running.pop(done)
                killed = self._killed(done)
                if killed is None:
                    yield call[1], self._result(done)
                elif alone:
                    yield call[1], ("failed", describe_killed(*killed))
                else:
                    suspects.append(call)

    @abstractmethod
    def _limit(self) -> int:
        """How many calls may be under way now, one at least: a cluster may grow."""

    def _start(self, call: Call) -> Any:
        function, _, *arguments = call
        return self._submit(call_and_end_with, os.getpid(), function, *arguments)

    @abstractmethod
    def _submit(self, function: Any, *arguments: Any) -> Any:
        """Start ``function(*arguments)``; gives what the other methods know it by."""

    @abstractmethod
    def _wait(self, running: list[Any]) -> list[Any]:
        """Those that have ended, one at least."""

    @abstractmethod
    def _killed(self, done: Any) -> tuple[int, str] | None:
        """How often its worker was killed, and what the cluster says, where it has given it up."""

    @abstractmethod
    def _result(self, done: Any) -> Any:
        """What it returned; for an exception what the store keeps of it."""

    @abstractmethod
    def close(self) -> None:
        """End what was started here; a cluster that was there before goes on."""


class DaskCluster(Cluster):
    """The cluster of the current ``distributed.Client``, else of ``DASK_SCHEDULER_ADDRESS``, else one of this machine.

    Args:
        jobs: calls at a time; default: one per thread of the cluster, or one per core here.
    """

    def __init__(self, jobs: int | None) -> None:
        import dask
        from distributed import Client

        try:
            self._client, self._own = Client.current(), False
        except ValueError:  # there is none
            local = {"n_workers": jobs or os.cpu_count(), "threads_per_worker": 1, "dashboard_address": ":0"}
            settings = {} if dask.config.get("scheduler-address", None) else local
            with dask.config.set({"distributed.scheduler.allowed-failures": 1}):  # what it gives up is made again
                self._client, self._own = Client(set_as_default=False, **settings), True
        self._jobs = jobs

    def _limit(self) -> int:
        return self._jobs or max(sum(self._client.nthreads().values()), 1)

    def _submit(self, function: Any, *arguments: Any) -> Any:
        return self._client.submit(function, *arguments, pure=False)

    def _wait(self, running: list[Any]) -> list[Any]:
        from distributed import wait

        with self._client.as_current():
            return list(wait(running, return_when="FIRST_COMPLETED").done)

    def _killed(self, done: Any) -> tuple[int, str] | None:
        from distributed import KilledWorker

        error = done.exception()
        return (error.allowed_failures + 1, str(error)) if isinstance(error, KilledWorker) else None

    def _result(self, done: Any) -> Any:
        error = done.exception()
        return done.result() if error is None else ("failed", describe_error(error))

    def close(self) -> None:
        if self._own:
            self._client.close()


class RayCluster(Cluster):
    """The cluster that this process is connected to, else that of ``RAY_ADDRESS``, else one of this machine.

    Args:
        jobs: calls at a time; default: one a processor of the cluster.
    """

    def __init__(self, jobs: int | None) -> None:
        import ray

        self._own = not ray.is_initialized()
        if self._own:
            local = {} if "RAY_ADDRESS" in os.environ else {"num_cpus": jobs, "include_dashboard": False}
            ray.init(log_to_driver=False, logging_level="ERROR", **local)
        self._jobs = jobs

    def _limit(self) -> int:
        import ray

        return self._jobs or max(int(ray.cluster_resources().get("CPU", 1)), 1)

    def _submit(self, function: Any, *arguments: Any) -> Any:
        import ray

        return ray.remote(max_retries=ATTEMPTS - 1, num_cpus=1)(function).remote(*arguments)

    def _wait(self, running: list[Any]) -> list[Any]:
        import ray

        return list(ray.wait(running, num_returns=1)[0])

    def _killed(self, done: Any) -> tuple[int, str] | None:
        import ray
        from ray.exceptions import OutOfMemoryError, RayError, WorkerCrashedError

        try:
            ray.get(done)
        except RayError as error:
            return (ATTEMPTS, str(error)) if isinstance(error, WorkerCrashedError | OutOfMemoryError) else None
        return None

    def _result(self, done: Any) -> Any:
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(done)
        except RayError as error:
            return "failed", describe_error(error)

    def close(self) -> None:
        import ray

        if self._own:
            ray.shutdown()
