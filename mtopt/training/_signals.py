"""SIGTERM and Ctrl-C end a training with a checkpoint instead of losing the steps since the last one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from mtopt.distributed import Processes

_HANDLED = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def ended_by_signals(stop: Callable[[], None], processes: Processes) -> Iterator[None]:
    """Within the block the first SIGTERM or SIGINT calls ``stop``; the signal takes its effect when the block is over,
    on all processes: what one of them received has all received.

    That effect is ``SystemExit(143)`` for SIGTERM, which would otherwise kill at once, and ``KeyboardInterrupt`` for
    SIGINT; a handler that the program had installed before is called instead. A second signal is handled as before the
    block, at once. Ignored signals stay ignored. Outside the main thread, where Python allows no handlers, and after
    the block, everything is as it was.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        _of_all([], processes)
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in _HANDLED}
    # a handler that is None was not installed from Python, and could not be put back
    handled = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    received: list[int] = []
    owner = os.getpid()

    def restore() -> None:
        for number in handled:
            signal.signal(number, before[number])

    def note(number: int, frame: FrameType | None) -> None:
        restore()
        if os.getpid() != owner:  # a process that was forked meanwhile, such as a loader's worker, is not training
            signal.raise_signal(number)
            return
        received.append(number)
        stop()

    for number in handled:
        signal.signal(number, note)
    try:
        yield
    finally:
        restore()
    for number in _of_all(received, processes):
        if before[number] == signal.SIG_DFL:
            raise SystemExit(128 + number)  # what a shell reports for a process that the signal killed
        signal.raise_signal(number)


def _of_all(received: list[int], processes: Processes) -> list[int]:
    counts = processes.count([number in received for number in _HANDLED])
    return [number for number, count in zip(_HANDLED, counts, strict=True) if count]
