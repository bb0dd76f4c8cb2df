"""A run for test_kill.py, as a program: ``python -m tests.training.killed_run DIRECTORY STEPS AT``.

It writes a checkpoint every ten steps. In the hook of step AT it says ``holding`` and waits for a signal; when the
callbacks are called at the end it says ``ended``.
"""

import sys
import time
from pathlib import Path

import torch

from mtopt.training import Callback
from tests.training.support import adam, fingerprint, loader, two_losses


class Hold(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, trainer, record):
        if record.step == self.at:
            print("holding", flush=True)
            deadline = time.monotonic() + 60
            while not trainer.stopping and time.monotonic() < deadline:
                time.sleep(0.01)

    def on_fit_end(self, trainer):
        print("ended", flush=True)


def run(directory: Path, steps: int, *callbacks: Callback) -> str:
    trainer = two_losses("pcgrad", make_optimizer=adam, callbacks=callbacks)
    trainer.fit(loader(), steps=steps, checkpoint_dir=directory / "checkpoints", checkpoint_every=10)
    return fingerprint(trainer)


if __name__ == "__main__":
    torch.set_num_threads(1)
    directory, steps, at = sys.argv[1:]
    try:
        run(Path(directory), int(steps), Hold(int(at)))
    finally:
        assert "rich" not in sys.modules  # only a progress bar that is shown imports it
