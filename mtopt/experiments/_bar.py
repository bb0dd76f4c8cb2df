"""How far a comparison is, in one line of standard error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mtopt._text import console, terminal_text, visible


class Bar:
    """A progress bar that shows nothing."""

    def expect(self, total: int) -> None:
        """Say how many runs there will be."""

    def advance(self, count: int, what: str) -> None:
        """Say that ``count`` more are done, ``what`` the last of them."""

    def tell(self, what: str) -> None:
        """Say at once what went wrong: whoever watches may stop, and mend the task."""
        warnings.warn(what, stacklevel=2)


class _RichBar(Bar):
    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._item = progress.add_task("", total=None)

    def expect(self, total: int) -> None:
        self._progress.update(self._item, total=total)

    def advance(self, count: int, what: str) -> None:
        self._progress.update(self._item, advance=count, description=visible(what))

    def tell(self, what: str) -> None:
        self._progress.console.print(terminal_text(what))


@contextmanager
def progress_bar(*, show: bool) -> Iterator[Bar]:
    """A bar of the runs that are done; one that shows nothing where ``show`` is false."""
    if not show:
        yield Bar()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    # the last run's name takes the rest of the line, and nothing else is cut
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False, table_column=rest),
    )
    with Progress(*columns, console=console(stderr=True), expand=True) as progress:
        yield _RichBar(progress)
