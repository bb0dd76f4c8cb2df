"""Suites that installed packages offer under short names: the entry-point group ``mtopt.suites``."""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

ENTRY_POINT_GROUP = "mtopt.suites"


def list_suites() -> list[str]:
    """Short names of the suites that ``mtopt compare`` knows, mtopt's own and those of other packages."""
    return sorted(set(entry_points(group=ENTRY_POINT_GROUP).names))


def find_registered(name: str) -> EntryPoint | None:
    """The entry of that short name; None where there is none.

    Raises:
        ValueError: packages disagree about it, or a module of that name is in the current folder, too.
    """
    entries = {entry.value: entry for entry in entry_points(group=ENTRY_POINT_GROUP, name=name)}
    if len(entries) > 1:
        raise ValueError(f"suite {name!r} is registered by several packages; name one of them: {', '.join(entries)}")
    if not entries:
        return None
    (entry,) = entries.values()
    here = PathFinder.find_spec(name, [str(Path.cwd())])
    if here is not None and here.origin is not None:
        raise ValueError(
            f"suite {name!r} is {entry.value} and also a module in this folder ({here.origin}); type {name}:suite for "
            f"that one, {entry.value} for the other"
        )
    return entry


def how_to_install(module: str) -> str:
    """What to do where a package is missing that a suite of ``module`` imports."""
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.module == module and entry.extras and entry.dist is not None:
            return f"pip install '{entry.dist.name}[{','.join(sorted(entry.extras))}]'"
    return "install it"
