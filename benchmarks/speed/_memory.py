"""Peak memory of the steps, each in a process of its own.

    python -m mtopt_suites.speed._memory MODEL K resident|tensors LINE ...

On a CPU: for each line a process is forked from one that has loaded the libraries and run no model, makes the model,
notes the resident memory, and runs three steps; the growth of the peak is the step's. A second process counts the
bytes that are allocated for tensors at once in the first two steps, which no allocator's habits enter. On CUDA: the
peak of torch's own allocator. Prints a JSON pair, name and MiB, for each line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from mtopt.files import parse_json, read_json

from ._floor import Step
from ._lines import PEERS, Line, lines
from .models import build

STEPS = 3
MIB = 2.0**20

RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""glibc with every tensor from the kernel and back to it: without the holes that its heap keeps."""


@dataclass(frozen=True)
class Memory:
    """MiB that a step takes beyond what the model and its batch do.

    Attributes:
        resident: growth of the process's peak, with glibc as it comes.
        returning: the same where glibc gives freed tensors back at once.
        tensors: allocated for tensors at once.
    """

    resident: float | None
    returning: float | None
    tensors: float


def weigh(model: str, tasks: int, chosen: Iterable[Line], device: str = "cpu") -> dict[str, Memory]:
    """The memory of every line that has one, by name; those that a library cannot run are left out."""
    names = [line.name for line in chosen if line.weighed]
    if device != "cpu":
        return _on_cuda(model, tasks, names, device)
    resident = _run(model, tasks, "resident", names, {})
    returning = _run(model, tasks, "resident", names, RETURNING)
    tensors = _run(model, tasks, "tensors", names, {})
    return {name: Memory(resident[name], returning[name], tensors[name]) for name in names if name in tensors}


def _run(model: str, tasks: int, what: str, names: list[str], environment: dict[str, str]) -> dict[str, float]:
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}._memory", model, str(tasks), what, *names],
        env={**os.environ, **one_thread, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"weighing {model} at K = {tasks} failed:\n{done.stderr[-2000:]}")
    place = f"the output of weighing {model} at K = {tasks}"
    return dict(parse_json(line, place, line=n, kind=list) for n, line in enumerate(done.stdout.splitlines(), start=1))


def peak_tensor_bytes(work: Callable[[], None]) -> int:
    """The most bytes that ``work`` has allocated for tensors on the CPU at once, as torch's allocator counts them.

    What was there before does not count, nor does it when it is freed.
    """
    activities = [torch.profiler.ProfilerActivity.CPU]
    with tempfile.TemporaryDirectory() as folder:
        with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            work()
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = read_json(path, kind=dict)["traceEvents"]
    changes = sorted(
        (event["args"]["Ev Idx"], event["args"]["Addr"], event["args"]["Bytes"])
        for event in events
        if event.get("name") == "[memory]"
    )
    held: dict[int, int] = {}
    now = peak = 0
    for _, address, change in changes:
        if change > 0:
            held[address] = change
            now += change
            peak = max(peak, now)
        else:  # what an earlier profile saw allocated is reported, too, when it is freed
            now -= held.pop(address, 0)
    return peak


def _resident(line: Line, model: str, tasks: int) -> float:
    import resource  # there is none on Windows

    step = line.make(build(model, tasks))
    status = Path("/proc/self/status").read_text().splitlines()
    before = int(next(row for row in status if row.startswith("VmRSS:")).split()[1])
    for _ in range(STEPS):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024.0


def _tensors(line: Line, model: str, tasks: int) -> float:
    step = line.make(build(model, tasks))

    def twice() -> None:
        step()
        step()

    return peak_tensor_bytes(twice) / MIB


def _forked(work: Callable[[], float]) -> float | None:
    """What ``work`` gives in a process of its own; None where it fails there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writing, json.dumps(work()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return float(answer) if answer else None


def _on_cuda(model: str, tasks: int, names: list[str], device: str) -> dict[str, Memory]:
    found = {}
    for line in lines(tasks):
        if line.name in names:
            step: Step = line.make(build(model, tasks, device))
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            for _ in range(STEPS):
                step()
            found[line.name] = Memory(None, None, (torch.cuda.max_memory_allocated() - before) / MIB)
            del step
            torch.cuda.empty_cache()
    return found


def main(arguments: list[str]) -> int:
    """Weigh the lines named; the exit status."""
    model, tasks, what, *names = arguments
    weighing = _resident if what == "resident" else _tensors
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the peers' deprecations, and the fork's of threads that only wait
    by_name = {line.name: line for line in lines(int(tasks))}
    for name in names:  # what the libraries load at their first step, on a model that weighs nothing
        with suppress(Exception) if by_name[name].kind in PEERS else nullcontext():  # told where it is timed
            by_name[name].make(build("small", int(tasks)))()
    for name in names:
        found = _forked(lambda line=by_name[name]: weighing(line, model, int(tasks)))  # type: ignore[misc]
        if found is not None:
            print(json.dumps([name, found]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
