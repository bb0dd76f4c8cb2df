"""Files that are written whole or not at all, and JSON whose faults name the file: for mtopt and its suites alike."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY_SUFFIX = ".tmp"

_KINDS = {dict: "an object", list: "an array", str: "a string", int: "a number", float: "a number", type(None): "null"}
_WHOLE = "is the file whole? Restore it from a copy, or delete it and have it made again"


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """An open binary file whose bytes take the name ``path`` when the block ends, in one step.

    They go to a file of a name of its own beside ``path`` and are forced to the disk first: whatever happens, a kill or
    a full disk, ``path`` holds the old content or the new, and two processes that write it do not mix. Missing folders
    are made, the permissions of a file that is replaced are kept, a link is replaced and not followed. What is no
    regular file (a device, a pipe) is written to directly.

    Raises:
        OSError: the disk is full, or the file or its folder may not be written to; ``path`` is as it was.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        with open(path, "wb") as file:
            yield file
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and not os.access(path, os.W_OK):
        raise PermissionError(13, "the file is there and may not be written to", str(path))
    temporary = path.with_name(f"{path.name[:40]}.{os.getpid()}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if path.is_file():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


@contextmanager
def folder_written_whole(path: str | os.PathLike[str], *, keep: bool = False) -> Iterator[Path]:
    """An empty folder whose files come to stand under the name ``path`` when the block ends, not one of them before.

    Where there is no such folder yet, all take their place in one step. Else each one does, and others that are there
    stay; with ``keep`` the whole folder that is there stays as it is, another process having made it meanwhile.

    Raises:
        OSError: as :func:`written_whole`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".unfinished-") as temporary:
        ready = Path(temporary) / "folder"
        ready.mkdir()
        yield ready
        files = [file for file in ready.rglob("*") if file.is_file()]
        for file in files:
            _sync(file)
        try:
            os.rename(ready, path)
        except OSError:
            if not path.is_dir():
                raise
            for file in files if not keep else ():
                place = path / file.relative_to(ready)
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, place)
    sync_directory(path.parent)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write ``content`` as :func:`written_whole` does; the path."""
    with written_whole(path) as file:
        file.write(content)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write ``text`` in UTF-8, line ends as they are, as :func:`written_whole` does; the path."""
    return write_bytes(path, text.encode("utf-8"))


def read_json(path: str | os.PathLike[str], *, kind: type | None = None, hint: str = _WHOLE) -> Any:
    """The content of a JSON file in UTF-8, with or without a byte-order mark.

    Args:
        path: the file.
        kind: ``dict`` or ``list``, where the value must be one. Default: any.
        hint: what to do about a fault; the end of its message.

    Raises:
        ValueError: not UTF-8, not JSON, nested too deeply, a number too long, or of another kind; the message names the
            file and, where there is one, the line.
        OSError: as of any file.
    """
    return parse_json(Path(path).read_bytes(), os.fspath(path), kind=kind, hint=hint)


def read_json_lines(
    path: str | os.PathLike[str], *, kind: type | None = None, hint: str = _WHOLE
) -> Iterator[tuple[int, Any]]:
    """The number and the value of each line of a JSON Lines file; blank ones are passed over.

    Arguments and errors are :func:`read_json`'s.
    """
    for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
        if line.strip():
            yield number, parse_json(line, os.fspath(path), line=number, kind=kind, hint=hint)


def parse_json(
    content: bytes | str, place: str, *, line: int | None = None, kind: type | None = None, hint: str = _WHOLE
) -> Any:
    """The value of a JSON text, which messages call ``place``; ``line`` is where it starts, if it is one line of it.

    Arguments and errors are else :func:`read_json`'s.
    """
    first, where = line or 1, place if line is None else f"{place}, line {line}"
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
    except UnicodeDecodeError as error:
        number = first + content.count(b"\n", 0, error.start)  # type: ignore[arg-type]  # str is never decoded
        raise ValueError(f"{place}, line {number}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        number = first + error.lineno - 1
        raise ValueError(f"{place}, line {number}, column {error.colno}: not JSON ({error.msg}); {hint}") from error
    except RecursionError as error:
        raise ValueError(f"{where}: brackets within brackets, more than can be read; {hint}") from error
    except ValueError as error:  # Python's limit of digits, where no place is given
        longest = max(re.finditer(r"\d+", text), key=lambda found: found.end() - found.start())
        number = first + text.count("\n", 0, longest.start())
        digits = longest.end() - longest.start()
        raise ValueError(
            f"{place}, line {number}: a number of {digits} digits, more than can be read; {hint}"
        ) from error
    if kind is not None and not isinstance(value, kind):
        found = _KINDS.get(type(value), type(value).__name__)
        raise ValueError(f"{where}: {_KINDS[kind]} was expected, found {found}; {hint}")
    return value


def sync_directory(directory: Path) -> None:
    """Force the new name itself to the disk."""
    if os.name != "nt":  # Windows opens no directories
        _sync(directory)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
