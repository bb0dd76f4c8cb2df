"""Calls in processes of their own, each of which may be killed without the others."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from mtopt.experiments._failure import describe_killed

ATTEMPTS = 3
"""How often a call is made whose process is killed: more, and one that takes all memory would never end."""

_THREADS = ("OMP", "MKL", "OPENBLAS", "BLIS", "VECLIB_MAXIMUM", "NUMBA", "NUMEXPR")

Call = tuple[Any, ...]
"""``(function, label, *arguments)``."""


class Processes:
    """``count`` processes with one thread each; they are started when there is work, and kept from one to the next.

    Each is a pool of its own: a pool is lost as a whole when the system kills one of its processes, for want of memory
    say, and with it the calls of all the others.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pools: dict[int, Any] = {}

    def each(self, calls: Sequence[Call]) -> Iterator[tuple[Any, Any]]:
        """``(label, function(*arguments))`` of each call, in the order that they end.

        A call whose process is killed is made again; after :data:`ATTEMPTS` of them its result is what
        :func:`mtopt.experiments._failure.attempt` keeps of a failure.
        """
        waiting = deque((call, 1) for call in calls)
        free = list(range(min(self.count, len(calls))))
        running: dict[Future[Any], tuple[int, Call, int]] = {}
        while waiting or running:
            while free and waiting:
                place, (call, attempt) = free.pop(), waiting.popleft()
                running[self._submit(place, call)] = place, call, attempt
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                place, call, attempt = running.pop(future)
                free.append(place)
                try:
                    answer = call[1], future.result()
                except BrokenProcessPool as error:
                    self._end(place)
                    if attempt < ATTEMPTS and _is_killed(error):
                        waiting.appendleft((call, attempt + 1))
                        continue
                    answer = call[1], ("failed", _tell_broken(error))
                yield answer

    def _submit(self, place: int, call: Call) -> Future[Any]:
        from joblib.externals.loky import ProcessPoolExecutor

        if place not in self._pools:
            one_thread = {f"{name}_NUM_THREADS": "1" for name in _THREADS}
            self._pools[place] = ProcessPoolExecutor(max_workers=1, env=one_thread)
        function, _, *arguments = call
        submitted: Future[Any] = self._pools[place].submit(call_and_end_with, os.getpid(), function, *arguments)
        return submitted

    def _end(self, place: int) -> None:
        self._pools.pop(place).shutdown(wait=True, kill_workers=True)

    def close(self) -> None:
        """End the processes, whatever they do."""
        for place in list(self._pools):
            self._end(place)


def _is_killed(error: BrokenProcessPool) -> bool:
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    return isinstance(error, TerminatedWorkerError)


def _tell_broken(error: BrokenProcessPool) -> dict[str, str]:
    if not _is_killed(error):  # the task or its result cannot be sent to another process
        cause = error.__cause__ or error
        told = "".join(traceback.format_exception(cause))
        return {
            "by": "code",
            "kind": type(cause).__name__,
            "error": f"{type(cause).__name__}: {cause}",
            "traceback": told,
        }
    return describe_killed(ATTEMPTS, str(error))


def call_and_end_with(parent: int, function: Any, *arguments: Any) -> Any:
    """``function(*arguments)`` in a process that ends when the one that it works for is killed."""
    _end_with(parent)
    return function(*arguments)


_watched: set[int] = set()


def _end_with(parent: int) -> None:
    """Let this process end when the one that it works for is killed, and not at the end of its run.

    A worker on another machine, or one that is not a child of the comparison's process, has a master of its own.
    """
    if os.getppid() != parent or parent in _watched:
        return
    _watched.add(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
