"""One checkpoint file: written so that a crash leaves the old one or the new one, read only if every byte is right.

The file is what ``torch.save`` writes, a zip archive, whose comment carries a mark: the format's version and the
SHA-256 of all bytes before it. ``torch.load`` opens the file as any other. The digest is taken while the bytes are
written, so nothing of the model is copied for it, and checked before anything is unpickled.
"""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import re
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from mtopt._content import FAULTS
from mtopt._errors import CheckpointError
from mtopt.files import written_whole

FORMAT_VERSION = 1

_MARK = re.compile(rb"mtopt-checkpoint (\d+) sha256 ([0-9a-f]{64})\Z")
_LONGEST_MARK = 128
_ZIP_START = b"PK\x03\x04"
_BLOCK = 1 << 20
_ATOMS = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size)
_MAPPINGS = (dict, OrderedDict, Counter)


class CheckpointWarning(UserWarning):
    """A checkpoint could not be used as it was asked for; training went on in the way that the message says."""


def write_checkpoint(path: str | os.PathLike[str], content: Any) -> None:
    """Write ``content`` to ``path`` atomically, with a checksum.

    As :func:`mtopt.files.written_whole` does it: whatever happens, ``path`` holds the old content or the new.

    Args:
        path: the file; missing folders are made.
        content: tensors and plain values (numbers, strings, None, in lists, tuples and dictionaries).

    Raises:
        TypeError: a value of another kind, with its place; ``read_checkpoint`` could not load it safely.
        OSError: the disk is full, or the directory cannot be written to; ``path`` is as it was.
    """
    content = plain(content, "content")
    with written_whole(path) as file:
        hashing = _HashingWriter(file)
        torch.save(content, hashing)  # type: ignore[arg-type]  # it asks for write and flush alone
        mark = f"mtopt-checkpoint {FORMAT_VERSION} sha256 {hashing.digest.hexdigest()}".encode()
        # the archive ends with the length of its comment, so far zero
        file.seek(-2, os.SEEK_END)
        file.write(len(mark).to_bytes(2, "little") + mark)


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """The content of a file that :func:`write_checkpoint` wrote, with all tensors on the CPU.

    Raises:
        CheckpointError: the file is truncated, damaged, of another format version, or none of this package's.
        FileNotFoundError, PermissionError: as of any file.
    """
    path = Path(path)
    _verify(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, *FAULTS) as error:
        raise CheckpointError(
            f"checkpoint {path} is intact, but this torch ({torch.__version__}) does not load it: {error}; "
            "use the versions of torch and mtopt that wrote it"
        ) from error


def plain(value: Any, where: str) -> Any:
    """``value`` with numpy's scalars as Python's; tensors are not copied.

    Raises:
        TypeError: it holds what ``torch.load(weights_only=True)`` would refuse; ``where`` starts the place.
    """
    if type(value) in _ATOMS or isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple, set):
        return type(value)(plain(entry, f"{where}[{index}]") for index, entry in enumerate(value))
    if type(value) in _MAPPINGS:
        rebuilt = copy.copy(value)  # keeps the versions of its layers, which a module notes on its state
        rebuilt.clear()
        for key, entry in value.items():
            rebuilt[plain(key, f"a key of {where}")] = plain(entry, f"{where}[{key!r}]")
        return rebuilt
    hint = "; torch.from_numpy makes it one" if isinstance(value, np.ndarray) else ""
    raise TypeError(
        f"{where} is a {type(value).__name__}, and a checkpoint holds tensors and plain values only{hint}; "
        "change the state_dict that it comes from"
    )


class _HashingWriter:
    """A file that takes the digest of what passes through it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _verify(path: Path) -> None:
    """Raise unless the file carries the mark, of this version, and the digest of its bytes is the mark's."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LONGEST_MARK))
        found = _MARK.search(file.read())
        if found is None:
            raise CheckpointError(_unmarked(path, file, size))
        version, expected = int(found[1]), found[2].decode()
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"checkpoint {path} has format version {version}, and this mtopt reads version {FORMAT_VERSION}; "
                "use the mtopt that wrote it"
            )
        body = size - len(found[0]) - 2
        file.seek(0)
        digest = hashlib.sha256()
        left = body
        while left > 0 and (block := file.read(min(_BLOCK, left))):
            digest.update(block)
            left -= len(block)
        comment_length = int.from_bytes(file.read(2), "little")
        digest.update(b"\0\0")  # what stood there when the digest was taken
        if digest.hexdigest() != expected or comment_length != len(found[0]):
            raise CheckpointError(
                f"checkpoint {path} is damaged: its {size} bytes do not match its checksum; "
                "delete it and go on from the one before, or from a copy"
            )


def _unmarked(path: Path, file: BinaryIO, size: int) -> str:
    if size == 0:
        return f"checkpoint {path} is empty; delete it and go on from the one before"
    file.seek(0)
    start = file.read(len(_ZIP_START))
    if start == _ZIP_START:
        return (
            f"checkpoint {path} ends, after {size} bytes, without mtopt's mark: it is truncated, or another program "
            "wrote it; go on from the one before, or give a file that mtopt wrote"
        )
    return f"{path} is no checkpoint of mtopt: it starts with {start!r}; give a file that mtopt wrote"
