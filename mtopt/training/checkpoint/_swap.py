"""One directory in the place of another, such that a kill leaves the old one or the new one to be read.

No call of an operating system that Python has puts a directory where another is. So the old one steps aside, under a
name that readers know, and goes once the new one has its place.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mtopt.files import sync_directory

ASIDE = ".replaced"


def swap(new: Path, path: Path) -> None:
    """Put the directory ``new``, of which all is written, in the place of ``path``, whatever is there."""
    sync_directory(new)
    aside = _aside(path)
    if os.path.lexists(path):
        remove(aside)  # of an earlier swap, which came to its end but for this
        os.rename(path, aside)
    os.rename(new, path)
    sync_directory(path.parent)
    remove(aside)


def standing(path: Path) -> Path:
    """Where to read what is called ``path``: there, or beside it where a swap was broken off between its renamings."""
    return path if os.path.lexists(path) or not os.path.lexists(_aside(path)) else _aside(path)


def put_back(directory: Path, pattern: str) -> None:
    """Undo, or finish, the swaps of paths that match ``pattern``, which no process is at any more."""
    for aside in directory.glob(pattern + ASIDE):
        path = nominal(aside)
        if os.path.lexists(path):
            remove(aside)
        else:
            os.rename(aside, path)


def nominal(path: Path) -> Path:
    """What a directory that stepped aside was called before."""
    return path.with_name(path.name.removesuffix(ASIDE))


def remove(path: Path) -> None:
    """Delete a directory with all that is in it, of a link the link; nothing where there is nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ASIDE)
