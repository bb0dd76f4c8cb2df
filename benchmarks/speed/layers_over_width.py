"""How the price of a step by layers grows with the rows of a batch over the width of the layers.

    python -m mtopt_suites.speed.layers_over_width [--out DIR] [--rounds N] [--seconds N]

MGDA on four layers of width 512, over the loop written by hand, in interleaved rounds of one process on one thread; see
:mod:`.layers`. Prints a table and draws it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import mtopt.plotting

from .._command import folder, run_command
from .layers import Case, ratios
from .models import Shared, dense

WIDTH = 512
SHARES = (1 / 32, 1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0)
"""N over the width."""

COUNTS = (2, 8, 40)

Found = Mapping[int, Mapping[float, Mapping[str, float]]]
"""By K and share: the ratios of the plans."""


def case_of(count: int, share: float) -> Case:
    """Four layers on so many rows."""
    rows = round(share * WIDTH)
    return Case(f"N = {rows}", lambda tasks: Shared(dense((WIDTH,) * 5), WIDTH, tasks, (rows, WIDTH)), count)


def draw(found: Found) -> Any:
    """Ratios over N / width, a line for each K, ``"layers"`` and what ``"auto"`` takes; the Figure."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    looks = mtopt.plotting.series_styles([f"K = {count}" for count in found])
    with mtopt.plotting.style():
        figure, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
        ax.axhline(1.0, color="0.4", linewidth=1.0, label="the loop, by hand")
        for count, row in found.items():
            look, shares = looks[f"K = {count}"], sorted(row)
            given = [row[share]["layers"] for share in shares]
            ax.plot(shares, given, color=look.color, marker=look.marker, label=f"K = {count}")
            taken = [row[share]["auto"] for share in shares]
            ax.plot(shares, taken, color=look.color, marker="o", markersize=9, markerfacecolor="none", linestyle="none")
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_locator(FixedLocator(SHARES))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"1/{1 / x:.0f}" if x < 1 else f"{x:.0f}"))
        ax.set_ylim(bottom=0.0)
        ax.set_xlabel("rows of the batch over the width of the layers, N / width")
        ax.set_ylabel("CPU time of a step\nover the loop's")
        ax.legend(loc="lower right", title='plan="layers"; rings: "auto"')
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and draw it; the exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}.layers_over_width", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=folder, default="mtopt-speed", metavar="DIR", help="folder (%(default)s)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="timed rounds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="N", help="at most for each point (%(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found: dict[int, dict[float, dict[str, float]]] = {}
    print("| K | plan | " + " | ".join(f"N = {round(share * WIDTH)}" for share in SHARES) + " |")
    print("|--:|---|" + "--:|" * len(SHARES))
    for count in COUNTS:
        found[count] = {share: ratios(case_of(count, share), options.rounds, options.seconds) for share in SHARES}
        for plan in ("layers", "auto", "rows"):
            cells = " | ".join(f"{found[count][share][plan]:.2f}" for share in SHARES)
            print(f"| {count} | {plan} | {cells} |", flush=True)
    files = mtopt.plotting.save(draw(found), Path(options.out) / "layers_over_width")
    print(f"figures: {', '.join(map(str, files))}")
    return 0


if __name__ == "__main__":
    run_command(main)
