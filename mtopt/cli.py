"""The ``mtopt`` command."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mtopt._command_line import Parser, completion
from mtopt._unlearn import add_options as add_unlearn_options
from mtopt._unlearn import run as unlearn

if TYPE_CHECKING:
    from mtopt.experiments import Comparison


_CLOSED_PIPE = 128 + 13  # as of a program that the signal of a closed pipe has ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status.

    0; 1 when an error of a task's, a suite's or a rule's code ended something, told with its traceback; 2 after wrong
    use, or where a file cannot be read or written, told in one line.
    """
    options = _parser().parse_once(sys.argv[1:] if arguments is None else arguments)
    from mtopt._errors import InUseError, StoreError, TaskError, UnknownNameError

    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        _let_go_of_the_pipe()
        return _CLOSED_PIPE
    except TaskError as error:
        _tell("".join(traceback.format_exception(error.__cause__ or error)))
        _tell(f"mtopt: {error}\n")
        return 1
    except (ValueError, TypeError, UnknownNameError, InUseError, OSError) as error:
        if not isinstance(error, OSError | InUseError | StoreError) and not _is_ours(error):
            raise
        _tell(f"mtopt: {error}\n")
        return 2
    except KeyboardInterrupt:
        print("mtopt: interrupted; finished runs are kept, the same command resumes", file=sys.stderr)
        return 130
    return status


def _is_ours(error: Exception) -> bool:
    """Whether mtopt's own code or its suites' says so, and not code they called, whose traceback its author needs."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    own = ("mtopt.", "mtopt_suites.")
    return all(f.f_globals is globals() or str(f.f_globals.get("__name__")).startswith(own) for f in frames)


def _tell(text: str) -> None:
    from mtopt._text import visible

    sys.stderr.write(visible(text, keep="\n"))


def _let_go_of_the_pipe() -> None:
    """What is still to be written goes nowhere, so that the end of the program does not fail on it again."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def _parser() -> Parser:
    from mtopt._version import __version__

    parser = Parser(prog="mtopt", description="Train one model on several losses; compare the rules.")
    parser.add_argument("--version", action="version", version=f"mtopt {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    compare = commands.add_parser(
        "compare",
        help="compare rules on suites and report",
        description="Compare gradient-combination rules on suites of tasks. Finished runs are kept under --out: "
        "after a kill the same command goes on where it was.",
    )
    compare.add_argument(
        "suites", nargs="+", metavar="SUITE", help="a name of 'mtopt list suites', or my_suite for my_suite.py"
    )
    compare.add_argument("--combiners", nargs="+", metavar="RULE", help="rules (default: the suite's own; 'all')")
    compare.add_argument("--seeds", type=int, metavar="N", help="seeds per rule and task (default: the task's)")
    compare.add_argument("--trials", type=int, metavar="N", help="configurations a rule tries (default: the task's)")
    compare.add_argument("--out", default="mtopt-results", metavar="DIR", help="folder of results (%(default)s)")
    compare.add_argument("--name", metavar="NAME", help="of this comparison (default: made from what is compared)")
    compare.add_argument("--quick", action="store_true", help="small budgets: minutes instead of hours")
    compare.add_argument("--jobs", type=int, metavar="N", help="processes at a time (default: one per core)")
    compare.add_argument(
        "--backend",
        choices=("loky", "dask", "ray"),
        help="where runs are made: processes here, or a cluster (DASK_SCHEDULER_ADDRESS, RAY_ADDRESS; else one here)",
    )
    compare.add_argument(
        "--tuning",
        choices=("halton", "tpe", "gp", "nsga2"),
        default="halton",
        help="who proposes the configurations (%(default)s; the others are Optuna's: pip install 'mtopt[tuning]')",
    )
    compare.add_argument("--tuning-storage", metavar="URL", help="database for Optuna's studies (default: none)")
    compare.set_defaults(run=_compare)

    report = commands.add_parser("report", help="make tables, figures and report.html again from the store alone")
    report.add_argument("directory", metavar="DIR", help="what --out was")
    report.add_argument("--name", help="which comparison in it (default: the last one)")
    report.set_defaults(run=_report)

    export = commands.add_parser("export", help="write runs, points and loss curves as tables")
    export.add_argument("directory", metavar="DIR", help="what --out was")
    export.add_argument("--name", help="which comparison in it (default: the last one)")
    export.add_argument("--format", choices=("csv", "parquet"), default="csv", help="default: %(default)s")
    export.add_argument("--to", metavar="FOLDER", help="where to (default: the comparison's folder in DIR)")
    export.set_defaults(run=_export)

    merge = commands.add_parser("merge", help="put the results of several folders, of several machines say, together")
    merge.add_argument("directories", nargs="+", metavar="DIR", help="what --out was; they stay as they are")
    merge.add_argument("--out", required=True, metavar="DIR", help="the folder for all of them, there or not")
    merge.set_defaults(run=_merge)

    listing = commands.add_parser("list", help="list what there is")
    listing.add_argument("what", choices=("suites", "combiners", "problems"))
    listing.set_defaults(run=_list)
    listing.add_argument("--json", action="store_true", help="print JSON, with all that is known of each")

    doctor = commands.add_parser("doctor", help="tell versions, threads, devices, and which extras are there")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)

    unlearning = commands.add_parser(
        "unlearn",
        help="make a language model forget the rows of a file, and report",
        description="Make a language model forget the rows of one file and keep those of another, by any published "
        "method or by any pair of losses under any rule; measure it before, on the way and after.",
    )
    add_unlearn_options(unlearning)
    unlearning.set_defaults(run=unlearn)

    completing = commands.add_parser(
        "completion", help="print a script for a shell", description='Completion: eval "$(mtopt completion bash)"'
    )
    completing.add_argument("shell", choices=("bash", "zsh"))
    completing.set_defaults(run=_completion)
    return parser


def _compare(options: argparse.Namespace) -> int:
    from mtopt.experiments import compare

    comparison = compare(
        *options.suites,
        combiners=options.combiners,
        seeds=options.seeds,
        trials=options.trials,
        out=options.out,
        name=options.name,
        quick=options.quick,
        jobs=options.jobs,
        backend=options.backend,
        tuning=options.tuning,
        tuning_storage=options.tuning_storage,
    )
    return _present(comparison)


def _report(options: argparse.Namespace) -> int:
    from mtopt.experiments import Comparison

    return _present(Comparison(options.directory, options.name))


def _export(options: argparse.Namespace) -> int:
    from mtopt.experiments import Comparison

    for path in Comparison(options.directory, options.name).export(options.to, format=options.format):
        print(path)
    return 0


def _merge(options: argparse.Namespace) -> int:
    from mtopt.experiments import merge

    for directory, (runs, names) in merge(options.directories, options.out).items():
        print(f"{directory}: {runs} runs taken; comparisons: {', '.join(names.values()) or 'none finished'}")
    return 0


def _present(comparison: Comparison) -> int:
    """Write and print what there is to see; the exit status, 1 where something is to be mended."""
    # files first: whoever reads the table may close the pipe
    page = comparison.report(figures=True)
    comparison.print()
    print(f"\nreport:  {page}\nfigures: {page.parent / 'figures'}\nruns:    {comparison.store.path}")
    others = [name for name in comparison.store.comparisons() if name != comparison.name]
    if others:
        print(f"other comparisons here, for mtopt report {comparison.store.directory} --name: {', '.join(others)}")
    errors = comparison.tell_errors()
    _tell(errors and f"\nmtopt: {errors}")
    return 1 if errors else 0


def _list(options: argparse.Namespace) -> int:
    if options.json:
        return _list_json(options.what)
    from rich.table import Table

    from mtopt._text import console, terminal_text

    columns, rows = {"suites": _suites, "combiners": _combiners, "problems": _problems}[options.what]()
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right" if column in ("variables", "objectives", "tasks") else "left")
    for row in rows:
        table.add_row(*map(terminal_text, row))
    console().print(table)
    return 0


Listing = tuple[tuple[str, ...], list[tuple[str, ...]]]
"""The columns after the name, and the rows."""


def _suites() -> Listing:
    from mtopt._errors import TaskError
    from mtopt.experiments import list_suites, load_suite

    rows: list[tuple[str, ...]] = []
    for name in list_suites():
        try:
            suite = load_suite(name)
        except (ValueError, TaskError) as error:  # one that is broken, or lacks a package, hides none of the others
            rows.append((name, "", str(error)))
        else:
            rows.append((name, str(len(suite.tasks)), suite.about.partition(". ")[0].rstrip(".")))
    return ("tasks", "what it is"), rows


def _combiners() -> Listing:
    from mtopt.combiners import combiner_class, list_combiners

    rules = {name: combiner_class(name) for name in list_combiners()}
    return ("needs", "what it is"), [(name, rule.needs, _first_line(rule)) for name, rule in rules.items()]


def _problems() -> Listing:
    from mtopt.problems import create_problem, list_problems

    problems = {name: create_problem(name) for name in list_problems()}
    return ("variables", "objectives", "what it is"), [
        (name, str(problem.num_variables), str(problem.num_objectives), _first_line(type(problem)))
        for name, problem in problems.items()
    ]


def _first_line(described: type) -> str:
    return (described.__doc__ or "").strip().split("\n")[0].replace("``", "")


def _list_json(what: str) -> int:
    import json

    known: list[dict[str, Any]]
    if what == "combiners":
        from mtopt.combiners import TRAITS, combiner_class, list_combiners

        rules = {name: combiner_class(name) for name in list_combiners()}
        known = [
            {"name": name, **{trait: getattr(rule, trait) for trait in TRAITS}, "what": _first_line(rule)}
            for name, rule in rules.items()
        ]
    elif what == "problems":
        from mtopt.problems import create_problem, list_problems

        problems = {name: create_problem(name) for name in list_problems()}
        known = [
            {"name": n, "variables": p.num_variables, "objectives": p.num_objectives, "what": _first_line(type(p))}
            for n, p in problems.items()
        ]
    else:
        raise ValueError(f"--json lists combiners and problems, found {what}; leave it out")
    print(json.dumps(known, indent=2))
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from mtopt._doctor import examine, told

    found = examine()
    if options.json:
        import json

        print(json.dumps(found, indent=2))
    else:
        from rich.table import Table

        from mtopt._text import console, terminal_text

        table = Table(box=None, pad_edge=False, show_header=False)
        for line in told(found):
            table.add_row(*map(terminal_text, line))
        console().print(table)
    return 1 if found["troubles"] else 0


def _completion(options: argparse.Namespace) -> int:
    from mtopt.combiners import list_combiners

    print(completion(_parser(), options.shell, {"RULE": ["all", *list_combiners()]}), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
