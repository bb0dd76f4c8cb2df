"""Every method from the same eight learning rates: runs what is missing, then prints tables and draws the figure.

    python -m mtopt_suites.unlearning.starting_rates --out runs/starting_rates
    python -m mtopt_suites.unlearning.starting_rates --out runs/quick --quick

A run's row is on disk as soon as the run has ended, so the same command goes on after a kill. Tables and figure are
over the seeds that are complete; ``--report-only`` makes them of what is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..._command import folder, run_command
from ..methods import METHODS as KNOWN
from .figure import draw
from .grid import METHODS, SEEDS, Grid, Rows, finished, run_missing
from .results import claim, table
from .training import STEPS

QUICK = ("GDiff(0.5)", "NGDiff", "NGDiff+GeN")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and report; the exit status."""
    options = _parser().parse_args(arguments)
    methods = options.methods or (QUICK if options.quick else METHODS)
    grid = Grid(methods, 1 if options.quick else options.seeds, options.steps)
    out = Path(options.out)
    rows = Rows(out, grid.steps)
    if not options.report_only:
        run_missing(grid, rows, jobs=options.jobs, cache_dir=None if options.cache is None else Path(options.cache))
    found, complete = finished(grid, rows)
    if not complete:
        print(f"no seed is complete yet, of {grid.seeds}; the same command goes on")
        return 1
    print(f"{len(complete)} of {grid.seeds} seeds are complete: {', '.join(map(str, complete))}\n")
    print(table(found), claim(found), sep="\n\n")
    print(draw(found, Path(options.figure) if options.figure else out / "starting_rates"))
    return 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog=f"python -m {__package__}", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=folder, required=True, help="the folder of the rows")
    made.add_argument(
        "--methods", nargs="+", choices=sorted(KNOWN), metavar="NAME", help=f"default: {', '.join(METHODS)}"
    )
    made.add_argument("--seeds", type=int, default=SEEDS, help=f"default: {SEEDS}")
    made.add_argument("--steps", type=int, default=STEPS, help=f"of each run; default: {STEPS}")
    made.add_argument("--quick", action="store_true", help=f"one seed of {', '.join(QUICK)}: minutes")
    made.add_argument("--jobs", type=int, default=2, help="processes; default: 2")
    made.add_argument("--cache", type=folder, help="where the models are kept; default: the user's cache folder")
    made.add_argument("--figure", help="the figure's path without an ending; default: in --out")
    made.add_argument("--report-only", action="store_true", help="run nothing")
    return made


if __name__ == "__main__":
    run_command(main)
