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
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from mtopt.files import write_text
from mtopt.plotting import save, style
from mtopt.plotting.rule_style import COLORS
from mtopt.plotting.theme import INK

from ..._command import folder, run_command
from .comparison import DEFAULT, METHODS, TRIALS, Row, compare_methods
from .settings import ClassForgetting, Confusion, Setting

PERCENT = {"forget": "forget %", "retain": "retain %", "test": "test %"}
PARTS = tuple(PERCENT)
ACCURACIES = {"forget": "accuracy on the forget set (%)", "test": "accuracy on unseen images (%)"}
_COLOR = COLORS[0]


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
    """A line for each method and a row of panels for each setting, the largest ToW on top; the dashed line is exact
    retraining. Every model has a faint mark, so that two camps are not taken for one mean."""
    with style():
        figure, axes = plt.subplots(
            len(results),
            3,
            figsize=(8.2, sum(0.7 + 0.17 * len(rows) for rows in results.values())),
            width_ratios=(1.2, 1.2, 1),
            height_ratios=[len(rows) for rows in results.values()],
            sharey="row",
            layout="constrained",
            squeeze=False,
        )
        for panels, (setting, rows) in zip(axes, results.items(), strict=True):
            ordered = sorted(rows, key=lambda row: (row.method != "retrained", -np.mean(row.values["ToW"])))
            for ax, part in zip(panels, ACCURACIES, strict=False):
                _accuracies(ax, [100 * np.array(row.values[part]) for row in ordered])
            _klom(panels[-1], ordered)
            panels[0].set_yticks(range(len(ordered)), [row.method for row in ordered])
            panels[0].set_ylim(len(ordered) - 0.4, -0.6)
            panels[0].set_title(setting.title.removeprefix("Digits: "))
        for ax, label in zip(axes[-1], (*ACCURACIES.values(), "← KLoM (nats), lower is better"), strict=True):
            ax.set_xlabel(label)
        models = len(next(iter(results.values()))[0].values["test"])
        figure.legend(
            handles=[
                Line2D([], [], color=INK, ls="--", lw=0.9, label="retrained: nearer is better"),
                Line2D([], [], color=_COLOR, marker="o", ls="none", ms=6, label=f"mean over {models} models"),
                Line2D([], [], color=_COLOR, marker="|", ls="none", ms=6, alpha=0.5, label="each model"),
                Line2D([], [], color=_COLOR, marker="D", ls="none", ms=5, label="KLoM, forget set"),
                Line2D([], [], color=_COLOR, marker="D", mfc="white", ls="none", ms=5, label="KLoM, retain set"),
            ],
            loc="outside lower center",
            ncols=5,
            handlelength=1.6,
        )
        (written,) = save(figure, path, formats=("png",))
        plt.close(figure)
    return written


def _accuracies(ax: Axes, percentages: Sequence[npt.NDArray[np.float64]]) -> None:
    """One line of marks for each method, the first of which is retrained."""
    ax.axvline(percentages[0].mean(), color=INK, lw=0.9, ls="--", zorder=1)
    for place, values in enumerate(percentages):
        ax.plot(values, np.full(len(values), place), color=_COLOR, marker="|", ls="none", ms=6, alpha=0.25, zorder=2)
        ax.plot(values.mean(), place, color=INK if place == 0 else _COLOR, marker="o", ls="none", ms=6, zorder=3)


def _klom(ax: Axes, rows: Sequence[Row]) -> None:
    for place, row in enumerate(rows):
        forget, retain = (row.divergences[f"KLoM, {part}"] for part in ("forget", "retain"))
        color = INK if place == 0 else _COLOR
        ax.plot([forget, retain], [place, place], color="#BDBDBD", lw=1.2, zorder=1)
        ax.plot(forget, place, color=color, marker="D", ls="none", ms=5, zorder=3)
        ax.plot(retain, place, color=color, marker="D", mfc="white", ls="none", ms=5, zorder=3)
    ax.set_xlim(left=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=folder, default=".", help="folder of the figure (default: this one)")
    parser.add_argument("--members", type=int, default=100, help="models of each kind (default: 100)")
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"configurations a method tries (default: {TRIALS})")
    parser.add_argument(
        "--methods", nargs="+", choices=METHODS, default=DEFAULT, metavar="METHOD",
        help=f"of {', '.join(METHODS)} (default: all but DP2Unlearning, which needs the extra privacy)",
    )  # fmt: skip
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
