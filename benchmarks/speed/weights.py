"""Time of each rule's weights alone, side by side with TorchJD in one run.

    python -m mtopt_suites.speed.weights [--out DIR] [--sizes K ...] [--rules RULE ...] [--rounds N]

Both sides get the same Gramians in float64 on the CPU, one after the other, drifting from call to call; they take turns
on one thread, and CPU time counts. A speed stands beside the error of the answers it was had with. Prints tables, and
writes ``weights.json``, ``weights.md`` (the ratios), ``weights.png`` and ``weights.svg``. Without TorchJD, mtopt is
timed alone.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

import mtopt

from .._command import folder, run_command
from ._pairs import INSTALL, PAIRS, Pair, peer_module
from ._report import Cell, Measured, draw, print_tables, write_json, write_markdown
from ._timing import Side, drifting_gradients, interleave

SIZES = (2, 4, 8, 32, 128)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status."""
    options = _parser().parse_args(arguments)
    torchjd = peer_module()
    if torchjd is None:
        print(f"TorchJD is not installed, so mtopt is timed alone; to compare: {INSTALL}", file=sys.stderr)
    pairs = [pair for pair in PAIRS if pair.name in options.rules]
    torch.set_num_threads(1)
    cells = []
    # numpy, scipy and torch are loaded by now, each with threads of its own
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cvxpy's, of inaccurate solutions: the errors show them
        for pair in pairs:
            for count in sorted(set(options.sizes)):
                if sys.stderr.isatty():
                    print(f"\r{pair.title}, K = {count}          ", end="", file=sys.stderr)
                cells.append(time_pair(pair, count, torchjd, rounds=options.rounds, seconds=options.seconds))
    if sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    settings = _settings(options)
    print_tables(cells, settings)
    out = Path(options.out)
    write_json(out / "weights.json", cells, settings)
    write_markdown(out / "weights.md", cells)
    files = mtopt.plotting.save(draw(cells), out / "weights")
    print(f"\nfigures: {', '.join(map(str, files))}\ntable:   {out / 'weights.md'}\nraw:     {out / 'weights.json'}")
    return 0


def time_pair(pair: Pair, count: int, torchjd: Any | None, *, rounds: int, seconds: float) -> Cell:
    """One cell: both sides over the same gradients, and the errors of their first answers."""
    factors = drifting_gradients(count)
    gramians = [factor @ factor.T for factor in factors]
    own = Side(pair.own(count), gramians)
    peer = None
    if torchjd is not None and count >= pair.fewest:
        peer = Side(pair.peer(torchjd, count), factors if pair.takes == "factor" else gramians)
    sides = [own] if peer is None else [own, peer]
    interleave(sides, rounds=rounds, seconds=seconds)
    judged = min(len(side.answers) for side in sides)
    measured = [
        Measured(side.seconds, _errors_of(pair, side, gramians, factors, judged, side is peer)) for side in sides
    ]
    return Cell(pair.name, pair.title, count, pair.meaning, measured[0], None if peer is None else measured[1])


def _errors_of(
    pair: Pair, side: Side, gramians: list[torch.Tensor], factors: list[torch.Tensor], judged: int, is_peer: bool
) -> list[float]:
    if pair.measure is None:
        return []
    matrices = [gramian.numpy() for gramian in gramians]
    errors = []
    for place, answer in enumerate(side.answers[:judged]):
        weights = answer
        if is_peer and pair.gives == "direction":  # d = factor' w
            weights = torch.linalg.solve_triangular(factors[place].T, answer[:, None], upper=True)[:, 0]
        errors.append(pair.measure(matrices[: place + 1], weights.double().numpy()))
    return errors


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    packages = ("mtopt", "torchjd", "torch", "numpy", "scipy", "cvxpy", "ecos", "quadprog")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "sizes": options.sizes,
        "rules": options.rules,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "clock": "CPU time of the process, one thread",
        "python": platform.python_version(),
        "machine": platform.platform(),
        "versions": versions,
    }


def _parser() -> argparse.ArgumentParser:
    names = [pair.name for pair in PAIRS]
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.weights",
        description="Time the weights of the rules that mtopt and TorchJD share, Gramian given, side by side.",
    )
    parser.add_argument(
        "--out", type=folder, default="mtopt-results/speed", metavar="DIR", help="folder of results (%(default)s)"
    )
    parser.add_argument("--sizes", nargs="+", type=_size, default=list(SIZES), metavar="K", help="default: %(default)s")
    parser.add_argument(
        "--rules",
        nargs="+",
        choices=names,
        default=names,
        metavar="RULE",
        help=f"of: {', '.join(names)} (default: all)",
    )
    parser.add_argument("--rounds", type=_positive, default=15, metavar="N", help="samples of each side (%(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=3.0,
        metavar="S",
        help="stop a cell after (%(default)s); it has 3 rounds at least",
    )
    return parser


def _size(text: str) -> int:
    size = _positive(text)
    if size < 2:
        raise argparse.ArgumentTypeError(f"K must be at least 2, found {text}")
    return size


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, found {text!r}")
    return int(text)


if __name__ == "__main__":
    run_command(main)
