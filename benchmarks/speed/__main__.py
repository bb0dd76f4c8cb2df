"""Time and memory of a training step: mtopt beside hand-written loops, TorchJD and LibMTL, in one run.

    python -m mtopt_suites.speed [--models NAME ...] [--ks K ...] [--threads N ...] [--rounds N] [--quick] [--out DIR]

Every line is a whole step (zero_grad, forward, backwards, the rule, SGD) on a model of its own with the same numbers;
the lines take turns, and a ratio is the median over rounds of the ratio in a round. On one thread CPU time of the
process counts, on several wall time; on CUDA (``--device cuda``) wall time between synchronisations. Prints the
targets, met or not, the times, the memory and the cost model, and writes ``step.md``, ``step.json``, ``step.png`` and
``step.svg``. A library that is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

import mtopt.plotting
from mtopt.files import write_text

from .._command import folder, run_command
from ._lines import Line, lines
from ._memory import Memory, weigh
from ._peers import missing
from ._step_report import draw, markdown, write_json
from ._targets import NAMES
from .models import MODELS
from .step import Cell, time_cell


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = min(options.rounds, 3), min(options.seconds, 1.0)
        options.models = [name for name in options.models if name != "transformer"] or options.models
        options.threads, options.memory_ks = options.threads[:1], []
    if options.targets:
        options.peers, options.memory_ks = False, []
    if options.device == "cuda" and not torch.cuda.is_available():
        print("--device cuda: torch finds no CUDA device here", file=sys.stderr)
        return 2
    if options.peers:
        for sentence in missing():
            print(sentence, file=sys.stderr)
    cells, out = [], Path(options.out)
    for threads in options.threads:
        with threadpool_limits(threads):
            for model in options.models:
                for tasks in options.ks:
                    _say(f"{model}, K = {tasks}, {threads} threads")
                    cells.append(_timed(model, tasks, threads, options))
                    write_json(out / "step.json", cells, {}, _settings(options))  # what is had is kept
    weighed: dict[tuple[str, int], Mapping[str, Memory]] = {}
    for model in options.models:
        for tasks in options.memory_ks:
            if model != "small":  # a step of it takes less than the processes differ by
                _say(f"memory of {model}, K = {tasks}")
                weighed[model, tasks] = weigh(model, tasks, lines(tasks, peers=options.peers), options.device)
    _say("")
    _finish(cells, weighed, options)
    return 0


def _timed(model: str, tasks: int, threads: int, options: argparse.Namespace) -> Cell:
    chosen = _lines(tasks, options)
    return time_cell(
        model, tasks, threads, chosen, rounds=options.rounds, seconds=options.seconds, device=options.device
    )


def _finish(
    cells: Sequence[Cell], weighed: Mapping[tuple[str, int], Mapping[str, Memory]], options: argparse.Namespace
) -> None:
    chosen = _all_lines(options)
    out = Path(options.out)
    write_json(out / "step.json", cells, weighed, _settings(options))
    text = markdown(cells, weighed, chosen)
    write_text(out / "step.md", text)
    print(text)
    one = [cell for cell in cells if cell.threads == options.threads[0]]
    files = mtopt.plotting.save(draw(one, weighed, chosen), out / "step")
    print(f"figures: {', '.join(map(str, files))}\ntables:  {out / 'step.md'}\nraw:     {out / 'step.json'}")


def _all_lines(options: argparse.Namespace) -> list[Line]:
    """The lines of any K, each once, in order."""
    by_name = {line.name: line for tasks in (2, *options.ks) for line in _lines(tasks, options)}
    return list(by_name.values())


def _lines(tasks: int, options: argparse.Namespace) -> list[Line]:
    found = lines(tasks, peers=options.peers)
    if not options.targets:
        return found
    by_name = {line.name: line for line in found}
    return [by_name[name] for name in NAMES if name in by_name]


def _say(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<60}", end="" if text else "\r", file=sys.stderr, flush=True)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    versions = {}
    for package in ("mtopt", "torch", "torchjd", "LibMTL"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        **vars(options),
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": versions,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Time and weigh a training step beside hand-written loops, TorchJD and LibMTL.",
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), help="default: all")
    parser.add_argument("--ks", nargs="+", type=_count, default=[2, 4, 8], metavar="K", help="losses (%(default)s)")
    parser.add_argument("--threads", nargs="+", type=_positive, default=[1, 2], metavar="N", help="%(default)s")
    parser.add_argument("--rounds", type=_positive, default=11, metavar="N", help="samples a line (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="stop a model at one K after")
    parser.add_argument("--memory-ks", nargs="*", type=_count, default=[8], metavar="K", help="weighed (%(default)s)")
    parser.add_argument("--targets", action="store_true", help="only the steps that targets are about, side by side")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="leave TorchJD and LibMTL out")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="%(default)s")
    parser.add_argument("--quick", action="store_true", help="three rounds on one thread, no transformer, no memory")
    parser.add_argument(
        "--out", type=folder, default="mtopt-results/speed", metavar="DIR", help="folder of results (%(default)s)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, found {text!r}")
    return int(text)


def _count(text: str) -> int:
    count = _positive(text)
    if count < 2:
        raise argparse.ArgumentTypeError(f"K must be at least 2, found {text}")
    return count


if __name__ == "__main__":
    run_command(main)
