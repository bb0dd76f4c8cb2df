"""Going on from the checkpoints of a run."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from mtopt._checkpoints import CheckpointWarning
from mtopt._errors import CheckpointError
from mtopt.training.checkpoint._folder import CheckpointFolder
from mtopt.training.checkpoint._protocol import Checkpointed
from mtopt.training.checkpoint._shards import with_shards
from mtopt.training.checkpoint._swap import standing


def resume_from(folder: CheckpointFolder, trainer: Checkpointed, steps: int | None) -> None:
    """Load the newest whole checkpoint into a trainer that has done no step; ``steps`` are what ``fit`` was asked for.

    Raises:
        CheckpointError: none is whole, or it does not fit; or the trainer has done steps, and fewer than a checkpoint.
    """
    if trainer.started:  # what is in memory goes first
        newest = max(folder.steps(), default=0)
        if newest > trainer.step:
            raise CheckpointError(
                f"{folder.directory} holds a checkpoint after {newest} steps, and this trainer has done "
                f"{trainer.step}; resume in a new trainer, give another directory, or overwrite with resume=False"
            )
        folder.follow(trainer.step)
        return
    found = folder.read()
    if found is None:
        return
    path, content = found
    load_content(trainer, path, content)
    if steps is not None and trainer.step > steps:
        warnings.warn(
            f"{path} holds {trainer.step} steps, more than the {steps} asked for; nothing is trained",
            CheckpointWarning,
            stacklevel=3,
        )


def load_content(trainer: Checkpointed, path: str | os.PathLike[str], content: Any) -> None:
    """Load what was read from ``path``, which an error then names; of a directory with the shards that lie in it."""
    try:
        if (found := standing(Path(path))).is_dir():
            content = with_shards(found, content, trainer.model, trainer.processes)
        trainer.load_state_dict(content)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {os.fspath(path)} does not fit: {error}") from error
