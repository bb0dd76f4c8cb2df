"""A training for test_killed.py, as torchrun starts it: ``killed_training.py DIRECTORY [STEP]``.

It writes a checkpoint every two steps, and each rank a digest of its end. The second rank kills itself in the hook of
step STEP, once.
"""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import distributed

from mtopt.training import Callback
from tests.distributed.trainings import data_of, loader_of, trainer_of
from tests.training.support import fingerprint


class Kills(Callback):
    def __init__(self, step: int, marker: Path) -> None:
        self.step, self.marker = step, marker

    def on_step_end(self, trainer, record):
        if record.step == self.step and distributed.get_rank() == 1 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    # a meeting place for each start: in that of the agent a rank may find the address of one that was killed
    place = f"file://{folder}/start-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=size)
    callbacks = [Kills(int(sys.argv[2]), folder / "killed")] if len(sys.argv) > 2 else []
    trainer = trainer_of("moco", callbacks=callbacks, noise=True)
    trainer.fit(loader_of(data_of()), epochs=2, checkpoint_dir=folder / "checkpoints", checkpoint_every=2)
    (folder / f"end-{distributed.get_rank()}").write_text(fingerprint(trainer))
    distributed.destroy_process_group()
