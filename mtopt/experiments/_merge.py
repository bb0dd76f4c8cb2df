"""The results of several folders in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mtopt.experiments._store import ResultStore


def merge(sources: Sequence[str | Path], out: str | Path) -> dict[str, tuple[int, dict[str, str]]]:
    """Put the runs and comparisons of several folders of results together in ``out``.

    A run that several have is taken from the first, a finished one before one that failed. Comparisons keep their
    names; one whose name is taken by another gets a number. :func:`mtopt.compare` with ``out`` then runs what is
    missing alone.

    Returns:
        For each source how many runs were taken, and for each of its comparisons the name in ``out``.

    Raises:
        FileNotFoundError, StoreError: a source is no store, or ``out`` cannot be one.
        InUseError: a comparison is at work in ``out``.
    """
    stores = {str(source): ResultStore(source, create=False) for source in sources}
    target = ResultStore(out)
    with target.held_alone():
        return {name: target.take(store) for name, store in stores.items() if store.directory != target.directory}
