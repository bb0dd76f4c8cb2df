"""A finished comparison, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtopt.experiments._names import folder_of
from mtopt.experiments._results import Results
from mtopt.experiments.presentation._export import export
from mtopt.experiments.presentation._figures import save_figures
from mtopt.experiments.presentation._place import PAGE, own_folder, remove_link
from mtopt.experiments.presentation._report import write_report
from mtopt.experiments.presentation._table import print_table
from mtopt.experiments.presentation._told import tell_failures


class Comparison(Results):
    """The finished comparison in a folder: its ranked table, its figures, its report.

    Args:
        source: the folder that ``mtopt compare`` wrote, or an open store.
        name: which of its comparisons. Default: the one that was last finished.
    """

    def tell_errors(self) -> str:
        """What there is to mend, in words: errors of code with their tracebacks, NaN or infinite values, skipped steps.

        Empty where there is nothing; that a rule says that it does not fit a task is a result like others.
        """
        errors = [failure for failure in self.failures if failure.by == "code"]
        told = tell_failures([*errors, *self.incidents])
        again = "mtopt: mtopt compare as before tries again the runs that raised, and no other\n" if errors else ""
        return f"{told}{again}"

    def print(self, file: Any = None) -> None:
        """The ranked table on the terminal."""
        print_table(self, file)

    @property
    def directory(self) -> Path:
        """The folder of its page and figures: its name, beside the store."""
        return self.store.directory / folder_of(self.name)

    def figures(self, directory: str | Path | None = None) -> list[Path]:
        """Draw every figure as PNG and SVG; default: in ``figures`` of :attr:`directory`, in place of those there."""
        return save_figures(self, own_folder(self.directory) if directory is None else Path(directory))

    def report(self, path: str | Path | None = None, *, figures: str | Path | bool | None = None) -> Path:
        """Write the self-contained page; default: ``report.html`` in :attr:`directory`.

        With ``figures``, a folder or True for the one that :meth:`figures` takes, the same pass writes them there.
        """
        if figures is True:
            figures = own_folder(self.directory)
        if path is None:
            remove_link(self.directory)
        page = self.directory / PAGE if path is None else Path(path)
        return write_report(self, page, figures=Path(figures) if figures else None)

    def export(self, directory: str | Path | None = None, *, format: str = "csv") -> list[Path]:
        """Write runs, points and loss curves as tables, ``"csv"`` or ``"parquet"``; default: in :attr:`directory`.

        Raises:
            ValueError: another format, or ``"parquet"`` where pyarrow is not installed.
        """
        return export(self, self.directory if directory is None else Path(directory), format)
