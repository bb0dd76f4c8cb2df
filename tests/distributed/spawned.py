"""Functions run on several gloo ranks of this machine, started once for many of them."""

from __future__ import annotations

import datetime
import pickle
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed

Cases = Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]]
"""By name a function of a module, which runs on every rank, and its arguments."""


class Raised:
    """What a case raised on a rank, in words, and how many seconds it took to."""

    def __init__(self, error: BaseException, seconds: float) -> None:
        self.kind, self.text, self.seconds = type(error).__name__, str(error), seconds
        self.traceback = "".join(traceback.format_exception(error))

    def __repr__(self) -> str:
        return self.traceback


def run_on_ranks(size: int, folder: Path, cases: Cases) -> dict[str, list[Any]]:
    """What each case gives on each rank: its result, or a :class:`Raised`."""
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    done = context.Event()
    processes = [context.Process(target=_run, args=(rank, size, folder, cases, results, done)) for rank in range(size)]
    for process in processes:
        process.start()
    # pickled by hand: torch would hand over tensors in shared memory, which ends with the process that made them
    found = dict(pickle.loads(results.get()) for _ in processes)
    done.set()
    for process in processes:
        process.join()
    broken = [each for each in found.values() if isinstance(each, Raised)]
    assert not broken, broken
    return {name: [found[rank][name] for rank in range(size)] for name in cases}


def _run(rank: int, size: int, folder: Path, cases: Cases, results: Any, done: Any) -> None:
    torch.set_num_threads(1)
    started = time.monotonic()
    try:
        store = distributed.FileStore(str(folder / "store"), size)
        timeout = datetime.timedelta(seconds=180)  # a machine may be busy
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
        found = {name: _run_one(function, arguments) for name, (function, arguments) in cases.items()}
    except BaseException as error:  # handed to the test, whatever it is, and raised here
        results.put(pickle.dumps((rank, Raised(error, time.monotonic() - started))))
        raise
    results.put(pickle.dumps((rank, found)))
    done.wait()  # a rank that goes takes its connections with it
    distributed.destroy_process_group()


def _run_one(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with Caught() as caught:
        return function(*arguments)
    return caught.raised


class Caught:
    """What is raised within, which ends there."""

    raised: Raised | None = None

    def __enter__(self) -> Caught:
        self.started = time.monotonic()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        if isinstance(error, Exception):
            self.raised = Raised(error, time.monotonic() - self.started)
        return self.raised is not None
