"""The checkpoints of one run: a folder that keeps the last two and finds the newest that is whole."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtopt._checkpoints import CheckpointWarning, read_checkpoint, write_checkpoint
from mtopt._errors import CheckpointError
from mtopt.distributed import ALONE, Processes
from mtopt.files import TEMPORARY_SUFFIX
from mtopt.locks import held_alone
from mtopt.training.checkpoint._position import of_all_ranks
from mtopt.training.checkpoint._shards import PARTIAL, holds_shards, read_rest, write_shards
from mtopt.training.checkpoint._swap import nominal, put_back, remove, standing
from mtopt.training.checkpoint._whole import whole_state

_NAME = re.compile(r"step-(\d+)\.(pt|shards)")
_ADVICE = "wait for the end of that run, end it, or give this one a checkpoint_dir of its own"


class CheckpointFolder:
    """Files ``step-0000000120.pt``, or directories ``step-0000000120.shards`` of sharded models, in one of their own.

    Args:
        directory: of one run alone: leftovers of a killed run are deleted from it when the folder is :meth:`held`, and
            all but the last two checkpoints after each write. Other files are not touched.
        processes: the ranks that have the folder together: the first looks, locks, writes and deletes, all read what it
            found, so they must see the same directory. Default: this process alone.
    """

    def __init__(self, directory: str | os.PathLike[str], *, processes: Processes = ALONE) -> None:
        self.directory = Path(directory)
        self.processes = processes
        self.directory.mkdir(parents=True, exist_ok=True)
        self._previous: Path | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """The folder for this run alone, until the block ends.

        Raises:
            InUseError: another run has it.
        """
        if self.processes.rank > 0:
            yield
            return
        with held_alone(self.directory, _ADVICE):
            for leftover in self.directory.glob(f"step-*.pt*{TEMPORARY_SUFFIX}"):
                leftover.unlink(missing_ok=True)
            put_back(self.directory, "step-*.shards")
            for leftover in self.directory.glob(f"step-*.shards{PARTIAL}"):
                shutil.rmtree(leftover)
            yield

    def path(self, step: int, kind: str = "pt") -> Path:
        """Where the checkpoint after ``step`` steps is: a file, or with ``kind="shards"`` a directory."""
        return self.directory / f"step-{step:010d}.{kind}"

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, in increasing order."""
        return sorted({step for step, path in self._entries() if self._is_own(step, path)})

    def _is_own(self, step: int, path: Path) -> bool:
        return (path == self.path(step) and path.is_file()) or (
            path == self.path(step, "shards") and standing(path).is_dir()
        )

    def read(self) -> tuple[Path, Any] | None:
        """The newest whole checkpoint and its path; None when there is no file at all.

        An entry that is truncated, damaged, foreign, not to be opened or no file is passed over with a
        :class:`CheckpointWarning`.

        Raises:
            CheckpointError: there are entries, and none is whole.
        """
        found = self._newest() if self.processes.rank == 0 else None
        (path, *_) = self.processes.gather(None if found is None else str(found[0]))
        if path is None or found is not None:
            return found
        return Path(path), read_content(Path(path))

    def _newest(self) -> tuple[Path, Any] | None:
        faults: list[str] = []
        for step, path in reversed(self._entries()):
            try:
                content = self._read(step, path)
            except CheckpointError as error:
                faults.append(str(error))
                continue
            if faults:
                warnings.warn(f"{'; '.join(faults)}. Went back to {path}", CheckpointWarning, stacklevel=5)
            self._previous = path
            return path, content
        if faults:
            raise CheckpointError(
                f"no checkpoint in {self.directory} can be used: {'; '.join(faults)}. "
                "Restore one, give another directory, or start over with resume=False"
            )
        return None

    def follow(self, step: int) -> None:
        """Take the checkpoint of ``step``, if there is one, for the one before the next to be written."""
        kinds = [self.path(step), self.path(step, "shards")]
        self._previous = next((path for path in kinds if standing(path).exists()), None)

    def write(self, step: int, content: Any) -> Path:
        """Write the checkpoint after ``step`` steps, then delete all but it and the one this run wrote or read before.

        What is deleted so are older ones, damaged ones, and those of a run that was started over; of a link, the link.
        """
        if holds_shards(content):
            path = self.path(step, "shards")
            write_shards(path, content, self.processes)
        else:
            path = self.path(step)
            write_together(path, content, self.processes)
        for other_step, other in self._entries() if self.processes.rank == 0 else ():
            if other in (path, self._previous):
                continue
            if self._is_own(other_step, other) or (other == self.path(other_step) and other.is_symlink()):
                remove(standing(other))
        self._previous = path
        return path

    def _entries(self) -> list[tuple[int, Path]]:
        """What is named like a checkpoint, by the step in the name; a name as it is written comes last."""
        paths = {nominal(path) if path.is_dir() else path for path in self.directory.iterdir()}
        found = ((_NAME.fullmatch(path.name), path) for path in paths)
        entries = [(int(match[1]), path) for match, path in found if match]
        return sorted(entries, key=lambda entry: (entry[0], entry[1].stem == self.path(entry[0]).stem, entry[1].suffix))

    def _read(self, step: int, path: Path) -> Any:
        if path.stem != self.path(step).stem:
            raise CheckpointError(
                f"{path} is not a name that mtopt writes; call it {self.path(step).stem}{path.suffix}, or move it away"
            )
        if path.suffix == ".shards" and standing(path).is_dir():
            return read_content(path)
        if not path.is_file():
            kind = "a directory" if path.is_dir() else "a link to nothing" if path.is_symlink() else "no file"
            raise CheckpointError(f"{path} is {kind}; move it away before the run comes to that step again")
        try:
            return read_checkpoint(path)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be opened: {error.strerror}; check its permissions") from error


def read_content(path: Path) -> Any:
    """What a checkpoint holds; of a directory all but the shards, which ``with_shards`` puts in."""
    path = standing(path)
    return read_rest(path) if path.is_dir() else read_checkpoint(path)


def write_together(path: str | os.PathLike[str], state: Any, processes: Processes) -> None:
    """Write a trainer's state, with the positions of all ranks, by the first one. All wait, and learn how it went."""
    content = of_all_ranks(whole_state(state, processes), processes)
    if processes.rank == 0:
        write_checkpoint(path, content)
    processes.meet()
