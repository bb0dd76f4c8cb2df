"""Runs that are killed with SIGKILL at drawn moments and started again, as a program:

``python -m tests.training.kills DIRECTORY SEED RULE=KILLS ...``

Each training is a child forked from this process, so that torch is imported once. Of every rule one run goes to its end
undisturbed, and KILLS others are killed once each and then resumed. For each rule a line of JSON says how many ended
with the same bits, and how many of the kills came before the first checkpoint, or left a half-written file behind.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mtopt.training import Callback, CSVLogger, Evaluator, WeightAverage
from tests.training.support import adam, fingerprint, loader, sgd, two_losses

STEPS = 8
_LONGEST_DELAY = 0.006  # seconds: about one step with its hooks and its checkpoint


class Beat(Callback):
    """Tells the parent, through a pipe, where the child is: at a step's end, or at the system calls of a write."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        for name in ("fsync", "replace"):
            setattr(os, name, self.announced(getattr(os, name)))

    def announced(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def announcing(*arguments: Any) -> Any:
            os.write(self.pipe, b".")
            return call(*arguments)

        return announcing

    def on_step_end(self, trainer, record):
        os.write(self.pipe, b".")


def train(rule: str, directory: Path, *callbacks: Callback) -> str:
    """With a schedule, dropout, batch norm, evaluations, an average of the weights and a log: every bit of the end."""
    average = WeightAverage(0.9)
    own = [Evaluator(loader(), every=3), average, CSVLogger(directory / "log.csv")]
    trainer = two_losses(rule, make_optimizer=adam if len(rule) % 2 else sgd, callbacks=[*own, *callbacks])
    trainer.fit(loader(), steps=STEPS, checkpoint_dir=directory / "checkpoints", checkpoint_every=2)
    parts = [fingerprint(trainer), trainer.combiner.state_dict(), average.state_dict(), trainer.scheduler.state_dict()]
    return "\n".join([*map(repr, parts), (directory / "log.csv").read_text()])


class Child:
    """A forked process that trains, writes its result to ``directory/result``, and ends with 0."""

    def __init__(self, rule: str, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.beats, pipe = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(pipe)
            return
        code = 1
        try:
            os.close(self.beats)
            result = train(rule, directory, Beat(pipe))
            (directory / "result").write_text(result)
            code = 0
        except BaseException:  # noqa: BLE001 - the parent hears of it by the exit code
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)  # whatever the parent has to clean up is the parent's

    def wait(self) -> int:
        """The beats it gave; an error unless it came to its end."""
        count = 0
        while block := os.read(self.beats, 4096):
            count += len(block)
        if (code := self._reap()) != 0:
            raise RuntimeError(f"a training failed with exit code {code}")
        return count

    def kill(self, after: int, delay: float) -> None:
        """Kill it that many seconds after its ``after``-th beat."""
        for _ in range(after):
            os.read(self.beats, 1)
        time.sleep(delay)
        os.kill(self.pid, signal.SIGKILL)
        if (code := self._reap()) != -signal.SIGKILL:
            raise RuntimeError(f"a training that was to be killed ended with exit code {code}")

    def _reap(self) -> int:
        os.close(self.beats)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def judge(rule: str, kills: int, draw: random.Random, directory: Path) -> dict[str, Any]:
    beats = Child(rule, directory / "whole").wait()
    expected = (directory / "whole" / "result").read_text()
    found = {"rule": rule, "kills": kills, "same": 0, "before_a_checkpoint": 0, "half_written": 0}
    for number in range(kills):
        run = directory / str(number)
        # the last beats come so shortly before the end that a kill after them may find it over
        Child(rule, run).kill(draw.randint(1, beats - 10), draw.random() * _LONGEST_DELAY)
        found["before_a_checkpoint"] += not list(run.glob("checkpoints/*.pt"))
        found["half_written"] += bool(list(run.glob("checkpoints/*.tmp")))
        Child(rule, run).wait()
        found["same"] += (run / "result").read_text() == expected
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    directory, seed, *wanted = sys.argv[1:]
    draw = random.Random(int(seed))
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        train("linear", Path(folder))  # what torch loads and builds when it is first used, the children find done
    for rule, kills in (entry.split("=") for entry in wanted):
        with tempfile.TemporaryDirectory(dir=directory) as folder:
            print(json.dumps(judge(rule, int(kills), draw, Path(folder))), flush=True)
