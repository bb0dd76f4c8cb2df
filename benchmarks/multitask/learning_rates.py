"""NGDiff with GeN, started at rates over four decades, beside NGDiff at constant rates: a table and a figure.

    python -m mtopt_suites.multitask.learning_rates --out docs/images

Two overlaid digits, the model and Adam of the suite's task. Accuracies are means over the two digits and over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.ticker import NullFormatter

import mtopt
from mtopt.plotting import save, style

from .._command import folder, run_command
from .multidigits import MultiDigits, overlaid

STARTS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
GRID = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
SEEDS = (0, 1, 2)
PROBED = 1000
"""Images a probe: the training images in six fixed parts, taken in turn."""


@dataclass(frozen=True)
class Run:
    """One training: accuracies in %, the mean cross-entropy of the test digits, and the rate of the last step."""

    automatic: bool
    start: float
    seed: int
    validation: float
    test: float
    loss: float
    last_rate: float


def train(automatic: bool, start: float, seed: int, steps: int) -> Run:
    """NGDiff from the rate ``start``, constant or automatic."""
    torch.set_num_threads(1)
    task = MultiDigits()
    trainer = task.trainer(mtopt.create_combiner("ngdiff"), learning_rate=start, seed=seed, point=0, points=1)
    if automatic:
        parts = zip(*(torch.split(tensor, PROBED) for tensor in overlaid("train", task.offset).tensors), strict=True)
        trainer.callbacks.append(mtopt.GeN(trainer.optimizer, batches=list(parts)))
    trainer.fit(task.data("train", seed=seed), steps=steps)
    scores = {split: task.values(trainer, split, seed=seed) for split in ("validation", "test")}
    accuracy = {split: 100.0 * (1.0 - (values["left"] + values["right"]) / 2.0) for split, values in scores.items()}
    loss = (scores["test"]["cross-entropy, left"] + scores["test"]["cross-entropy, right"]) / 2.0
    last = float(trainer.history.learning_rates[-1])
    return Run(automatic, start, seed, accuracy["validation"], accuracy["test"], loss, last)


def run_all(steps: int, seeds: Sequence[int] = SEEDS, jobs: int = 2) -> list[Run]:
    """Constant rates over ``GRID`` and automatic ones from ``STARTS``, for each seed."""
    wanted = [(False, rate, seed) for rate in GRID for seed in seeds]
    wanted += [(True, rate, seed) for rate in STARTS for seed in seeds]
    return list(joblib.Parallel(n_jobs=jobs)(joblib.delayed(train)(*each, steps) for each in wanted))


def mean_of(runs: Sequence[Run], field: str, automatic: bool, start: float) -> tuple[float, float]:
    """The mean over seeds and the largest distance of a seed from it."""
    values = np.array([getattr(run, field) for run in runs if run.automatic == automatic and run.start == start])
    return float(values.mean()), float(np.abs(values - values.mean()).max())


def table(runs: Sequence[Run]) -> str:
    """Markdown: one row per starting rate, and the best constant rate of the grid as validation chose it."""
    lines = ["| starting rate | accuracy, constant rate | accuracy, GeN | last rate, GeN |", "|---|---|---|---|"]
    for start in STARTS:
        constant, automatic = mean_of(runs, "test", False, start), mean_of(runs, "test", True, start)
        rate, _ = mean_of(runs, "last_rate", True, start)
        cells = [f"{mean:.2f} ± {spread:.2f}" for mean, spread in (constant, automatic)]
        lines.append(f"| {start:.0e} | {cells[0]} | {cells[1]} | {rate:.1e} |")
    best = max(GRID, key=lambda rate: mean_of(runs, "validation", False, rate)[0])
    tuned = mean_of(runs, "test", False, best)
    worst = min(mean_of(runs, "test", True, start)[0] for start in STARTS)
    lines.append(f"| tuned: {best:.0e} | {tuned[0]:.2f} ± {tuned[1]:.2f} | | |")
    lines.append("")
    lines.append(
        f"GeN's accuracy from its worst start minus that of the tuned constant rate: {worst - tuned[0]:+.2f} points."
    )
    return "\n".join(lines)


def draw(runs: Sequence[Run], folder: Path) -> Path:
    """Final loss and accuracy against the starting rate."""
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
        for ax, field, label in zip(
            axes, ("loss", "test"), ("cross-entropy, test digits (nats)", "accuracy, test digits (%)"), strict=True
        ):
            for automatic, rates, name, color, marker in (
                (False, GRID, "constant rate", "#999999", "s"),
                (True, STARTS, "GeN, started there", "#0072b2", "o"),
            ):
                means = np.array([mean_of(runs, field, automatic, rate)[0] for rate in rates])
                ax.plot(rates, means, color=color, label=name, zorder=2)
                seeds = [(run.start, getattr(run, field)) for run in runs if run.automatic == automatic]
                ax.scatter(*zip(*seeds, strict=True), s=14, color=color, marker=marker, zorder=3)
            ax.set_xscale("log")
            ax.set_xlabel("starting learning rate of Adam")
            ax.set_ylabel(label)
        axes[0].set_yscale("log")
        axes[0].set_yticks([0.2, 0.5, 1.0, 2.0], labels=["0.2", "0.5", "1", "2"])
        axes[0].yaxis.set_minor_formatter(NullFormatter())
        axes[1].set_ylim(0.0, 100.0)
        axes[1].legend(loc="lower center")
        (path,) = save(figure, folder / "learning_rates", formats=("png",))
        plt.close(figure)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=folder, default=".", help="folder of the figure (default: this one)")
    parser.add_argument("--steps", type=int, default=400, help="steps of each training (default: 400)")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    arguments = parser.parse_args()
    runs = run_all(arguments.steps, jobs=arguments.jobs)
    print(table(runs))
    print(draw(runs, Path(arguments.out)))


if __name__ == "__main__":
    run_command(main)
