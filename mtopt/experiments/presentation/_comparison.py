"""A finished comparison, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mtopt.experiments._results import Results
from mtopt.experiments.presentation._earlier import FIGURES, PAGE, set_aside_earlier
from mtopt.experiments.presentation._figures import save_figures
from mtopt.experiments.presentation._report import write_report
from mtopt.experiments.presentation._table import print_table
from mtopt.experiments.presentation._told import tell_failures


class Comparison(Results):
    """The finished comparison in a folder: its ranked table, its figures, its report.

    Args:
        source: the folder that ``mtopt compare`` wrote, or an open store.
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

    def set_aside_earlier(self) -> Path | None:
        """Rename what another comparison has left at the default places of the page and the figures, and say where to.

        :meth:`report` and :meth:`figures` do it before they write there.
        """
        return set_aside_earlier(self.store.directory, self.request)

    def figures(self, directory: str | Path | None = None) -> list[Path]:
        """Draw every figure as PNG and SVG; default: ``figures`` beside the store."""
        if directory is None:
            self.set_aside_earlier()
        return save_figures(self, self.store.directory / FIGURES if directory is None else Path(directory))

    def report(self, path: str | Path | None = None, *, figures: str | Path | None = None) -> Path:
        """Write the self-contained page; default: ``report.html`` beside the store.

        With ``figures``, a folder, the same pass writes them there, as :meth:`figures` does.
        """
        if path is None:
            self.set_aside_earlier()
        page = self.store.directory / PAGE if path is None else Path(path)
        return write_report(self, page, figures=None if figures is None else Path(figures))
