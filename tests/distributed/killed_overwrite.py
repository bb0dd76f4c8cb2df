"""Sharded checkpoints written over others and killed meanwhile, for a test: ``killed_overwrite.py DIRECTORY``.

One sharded training writes ``step-0000000003.shards`` and another writes over it, in a child that is killed before its
first change of such a directory; again before the second, and so on, until it comes to its end. For each a line of JSON
says before what it was killed, what was left, and from whose parameters a training in one process goes on.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from tests.distributed.models import weights_of, wrapped
from tests.distributed.trainings import Net, TwoErrors, data_of, loader_of

STEPS = 3
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open")


def trained(folder: Path, rate: float, wrap: str = "fsdp", resume: bool = True) -> list[float]:
    model = wrapped(Net(), wrap)
    trainer = TwoErrors(model, torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9), "mgda", seed=3)
    trainer.fit(loader_of(data_of()), steps=STEPS, checkpoint_dir=folder, resume=resume)
    return weights_of(model).tolist()


def in_a_child(function: Callable[[], object]) -> int:
    """The exit code of a forked process, in which it is called on the only rank of a group."""
    child = os.fork()
    if child == 0:
        try:
            distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
            function()
        except BaseException:  # noqa: BLE001 - the parent hears of it by the exit code
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_before(change: int, folder: Path, note: Path) -> None:
    """Kill this process before that change of what is in the folder; the note says what it would have been."""
    found: list[str] = []

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in CHANGES:
            return
        name, last = str(arguments[0]), arguments[-1]  # flags of a file, or the directory that a name is relative to
        relative = event != "open" and last != -1  # as those of all that is in a directory which is deleted
        if not relative and not (name.startswith(str(folder)) and ".shards" in name):
            return
        if event == "open" and not last & (os.O_WRONLY | os.O_RDWR):  # type: ignore[operator]
            return
        found.append(f"{event} {Path(name).name}")
        if len(found) == change:
            note.write_text(found[-1])
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def overwrite(change: int, directory: Path) -> dict[str, Any]:
    folder, note = directory / f"run-{change}", directory / f"note-{change}"
    shutil.copytree(directory / "old", folder)

    def second() -> None:
        kill_before(change, folder, note)
        trained(folder, 0.01, resume=False)

    return {
        "code": in_a_child(second),
        "before": note.read_text() if note.exists() else None,
        "left": sorted(path.name for path in folder.glob("step-*")),
        "end": trained(folder, 1.0, "bare"),
        "left at last": sorted(path.name for path in folder.glob("step-*")),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    directory, change, code = Path(sys.argv[1]), 0, -signal.SIGKILL
    if (first := in_a_child(lambda: trained(directory / "old", 0.05))) != 0:
        raise RuntimeError(f"the first training ended with exit code {first}")
    print(json.dumps(trained(directory / "old", 1.0, "bare")), flush=True)
    while code == -signal.SIGKILL:
        change += 1
        found = overwrite(change, directory)
        code = found["code"]
        print(json.dumps(found), flush=True)
