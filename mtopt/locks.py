"""A folder for one process alone, for as long as it needs it."""

from __future__ import annotations

import errno
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mtopt._errors import InUseError

LOCK_NAME = ".lock"

_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_BYTE = 1 << 30  # what is locked lies beyond what is written, so that the owner can be read everywhere

# The system's locks are a process's: of two blocks in one process it knows nothing.
_held_here: set[Path] = set()


@contextmanager
def held_alone(
    folder: str | os.PathLike[str], advice: str = "wait for its end, or give another folder"
) -> Iterator[None]:
    """Hold ``folder`` until the block ends; missing ones are made, and a file ``.lock`` stays in it.

    The lock ends with the process, however that ends; processes forked from it do not have it. A file system without
    locks gives a warning, and no lock.

    Args:
        folder: which.
        advice: the end of the error's message.

    Raises:
        InUseError: another process holds it, or another block of this one.
        OSError: the folder cannot be written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    place = folder.resolve()
    if place in _held_here:
        raise InUseError(f"{folder} is in use by another run of this process; {advice}")
    with open(folder / LOCK_NAME, "a+b") as file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno in _BUSY:
                file.seek(0)
                owner = file.read(200).decode("utf-8", "replace").strip() or "another process"
                raise InUseError(f"{folder} is in use by {owner}; {advice}") from None
            if error.errno not in _UNSUPPORTED:
                raise
            warnings.warn(
                f"{folder} cannot be locked ({error}); see to it that nothing else writes to it", stacklevel=3
            )
        _held_here.add(place)
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            file.flush()
            yield
        finally:
            _held_here.discard(place)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[bytes]) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _BYTE)
