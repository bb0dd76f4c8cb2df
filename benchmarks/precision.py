"""How far directions are from what their rules promise, on gradients that depend on each other.

    python -m mtopt_suites.precision [--draws N] [--rules RULE ...]

Families of dependent rows (opposite pairs, rows of 1 and -1, sums of zero, repeated rows, up to 16, alike or up to 1e12
apart), cast to float64, float32 and bfloat16; the violations are computed on the cast rows in extended precision.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

import mtopt
from mtopt.testing import samplers

from ._command import run_command

Vector = npt.NDArray[np.longdouble]

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 1e-2}
"""What a direction must be longer than, over the longest row, to be more than zero."""


def rises(rows: Vector, norms: Vector, direction: Vector) -> float:
    """The largest ``-g_k . d / (||g_k|| ||d||)``."""
    return float((-(rows @ direction) / norms).max() / _length(direction))


def falls_short(rows: Vector, norms: Vector, direction: Vector) -> float:
    """The largest ``(||d||² - g_k . d) / (||g_k|| ||d||)``."""
    return float(((direction @ direction - rows @ direction) / norms).max() / _length(direction))


def leaves_ball(rows: Vector, norms: Vector, direction: Vector) -> float:
    """``||d - g_0|| / (c ||g_0||) - 1`` for c = 0.4 and the mean g_0 of the rows."""
    mean = rows.mean(axis=0)
    radius = 0.4 * _length(mean)
    return (_length(direction - mean) - radius) / max(radius, 1e-3 * float(np.sqrt((rows * rows).sum(axis=1).max())))


PROMISES: dict[str, tuple[str, Callable[[Vector, Vector, Vector], float]]] = {
    "upgrad": ("`g_k . d >= 0`", rises),
    "dualproj": ("`g_k . d >= 0`", rises),
    "gem": ("`g_k . d >= 0`", rises),
    "nash_mtl": ("`g_k . d >= 0`", rises),
    "fairgrad": ("`g_k . d >= 0`", rises),
    "mgda": ("`g_k . d >= d . d`", falls_short),
    "cagrad": ("in the ball", leaves_ball),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.precision", description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=300, metavar="N", help="of each family (%(default)s)")
    parser.add_argument("--rules", nargs="+", choices=list(PROMISES), default=list(PROMISES), metavar="RULE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| rule | promise | " + " | ".join(f"{str(dtype).removeprefix('torch.')}" for dtype in DTYPES) + " |")
    print("|---|---|" + "---|" * len(DTYPES))
    for name in options.rules:
        worst = [measure(name, dtype, options.draws) for dtype in DTYPES]
        print(f"| `{name}` | {PROMISES[name][0]} | " + " | ".join(f"{value:.0e}" for value in worst) + " |", flush=True)


def measure(name: str, dtype: torch.dtype, draws: int) -> float:
    """The largest violation of the rule's promise; a direction that passes as zero violates none."""
    _, violation = PROMISES[name]
    worst = 0.0
    for jacobian in drawn(dtype, draws):
        found = mtopt.create_combiner(name)(jacobian, torch.ones(len(jacobian), dtype=torch.float64))
        rows, direction = (tensor.double().numpy().astype(np.longdouble) for tensor in (jacobian, found))
        norms = np.sqrt((rows * rows).sum(axis=1))
        if _length(direction) > DTYPES[dtype] * float(norms.max()):
            worst = max(worst, violation(rows, np.where(norms > 0.0, norms, np.inf), direction))
    return worst


def drawn(dtype: torch.dtype, draws: int) -> Iterator[torch.Tensor]:
    """Rows of every family."""
    for family in samplers.DEPENDENT.values():
        for seed in range(draws):
            dice = random.Random(seed)
            count = dice.randint(2, 16)
            jacobian = family(seed, count, dice.choice((max(1, count // 2), count, 2 * count, 200)))
            decades = dice.choice((0.0, 0.0, 1.0, 6.0))
            yield samplers.with_row_scales(jacobian, decades, seed, exact=dice.random() < 0.5).to(dtype)


def _length(vector: Vector) -> float:
    return float(np.sqrt(vector @ vector))


if __name__ == "__main__":
    run_command(main)
