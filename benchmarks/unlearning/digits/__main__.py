"""Baselines of class unlearning beside gradient-combination rules, in both settings: two tables and a figure.

    python -m mtopt_suites.unlearning.digits --out docs/images

Every method is tuned alike. Figures are over as many models as ``--members`` says, each of a seed of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from mtopt.files import write_text
from mtopt.plotting import Style, rule_styles, save, shared_legend, style

from ..._command import folder, run_command
from .comparison import METHODS, TRIALS, Row, compare_methods
from .settings import ClassForgetting, Confusion, Setting

PERCENT = {"forget": "forget %", "retain": "retain %", "test": "test %"}
PARTS = tuple(PERCENT)


def table(rows: Sequence[Row]) -> str:
    """Markdown: means over the models, with the standard deviation where it matters."""
    header = ["method", *PERCENT.values(), "ToW", "loss attack", "MIA-Eff.", "KLoM f / r / t", "CPU s", "chosen"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for row in rows:
        cells = [
            row.method,
            *(f"{100 * np.mean(row.values[name]):.1f} ± {100 * np.std(row.values[name]):.1f}" for name in PERCENT),
            f"{np.mean(row.values['ToW']):.3f} ± {np.std(row.values['ToW']):.3f}",
            f"{np.mean(row.values['loss attack']):.3f}",
            f"{np.mean(row.values['confidence attack']):.3f}",
            " / ".join(f"{row.divergences[f'KLoM, {part}']:.2f}" for part in PARTS),
            f"{row.cpu_seconds:.2f}" if row.configuration else "",
            ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.configuration.items()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: Mapping[Setting, Sequence[Row]], path: Path) -> Path:
    """Above, accuracies with the retrained models' as the target; below, KLoM with its floor."""
    names = [row.method for row in next(iter(results.values()))]
    known: Mapping[str, Style] = rule_styles([name for name in names if name not in ("original", "retrained")])
    styles = {"original": Style("#888888", "h", "-"), "retrained": Style("black", "*", "-"), **known}
    with style():
        figure, axes = plt.subplots(2, len(results), figsize=(4.3 * len(results), 7.2), layout="constrained")
        for column, (setting, rows) in zip(axes.T, results.items(), strict=True):
            for row in rows:
                _accuracies(column[0], row, styles[row.method])
                look = styles[row.method]
                place = row.divergences["KLoM, forget"], row.divergences["KLoM, retain"]
                column[1].scatter(*place, color=look.color, marker=look.marker, s=45, zorder=3)
            target = next(row for row in rows if row.method == "retrained")
            column[0].axvline(100 * np.mean(target.values["forget"]), color="black", lw=0.7, ls=":")
            column[0].axhline(100 * np.mean(target.values["test"]), color="black", lw=0.7, ls=":")
            column[1].axvline(target.divergences["KLoM, forget"], color="black", lw=0.7, ls=":")
            column[1].axhline(target.divergences["KLoM, retain"], color="black", lw=0.7, ls=":")
            column[0].set_title(setting.title.removeprefix("Digits: "))
            column[0].set_xlabel("accuracy, forget set (%)")
            column[1].set_xlabel("KLoM, forget set (nats)")
            column[1].set_xlim(left=0.0)
            column[1].set_ylim(bottom=0.0)
        axes[0, 0].set_ylabel("accuracy, test set (%)")
        axes[1, 0].set_ylabel("KLoM, retain set (nats)")
        models = len(next(iter(results.values()))[0].values["test"])
        shared_legend(axes.ravel(), title=f"mean over {models} models,\nbars: ±1 standard deviation")
        (written,) = save(figure, path, formats=("png",))
        plt.close(figure)
    return written


def _accuracies(ax: Axes, row: Row, look: Style) -> None:
    x, y = (100 * np.array(row.values[name]) for name in ("forget", "test"))
    ax.errorbar(
        x.mean(), y.mean(), xerr=x.std(), yerr=y.std(), color=look.color, marker=look.marker, ms=6.5, lw=0.8, ls="none",
        label=row.method,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=folder, default=".", help="folder of the figure (default: this one)")
    parser.add_argument("--members", type=int, default=100, help="models of each kind (default: 100)")
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"configurations a method tries (default: {TRIALS})")
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="METHOD", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--forgotten", type=int, default=3, help="the class to forget (default: 3)")
    parser.add_argument("--confused", type=int, nargs=2, default=(3, 8), help="the classes swapped (default: 3 8)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--cache", type=Path, help="folder of trained models (default: in ~/.cache)")
    parser.add_argument("--log", type=Path, help="JSON file for every figure of every model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[Setting, list[Row]] = {}
    for setting in (ClassForgetting(arguments.forgotten), Confusion(*arguments.confused)):
        results[setting] = compare_methods(
            setting,
            members=arguments.members,
            trials=arguments.trials,
            chosen=arguments.methods,
            jobs=arguments.jobs,
            cache_dir=arguments.cache,
        )
        print(f"{setting.title}, {arguments.members} models\n\n{table(results[setting])}\n", flush=True)
    print(draw(results, Path(arguments.out) / "class_unlearning"))
    if arguments.log is not None:
        content = {setting.name: [asdict(row) for row in rows] for setting, rows in results.items()}
        write_text(arguments.log, json.dumps(content))


if __name__ == "__main__":
    run_command(main)
