"""A verdict at a glance: a line for each contestant, the mean over the seeds and their range."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from mtopt.plotting import save, style
from mtopt.plotting.rule_style import COLORS
from mtopt.plotting.theme import INK

from .verdict import Verdict, mean_of

OTHERS = "#8C8C8C"


def draw(found: Sequence[Verdict], references: Sequence[tuple[str, float]], path: Path) -> Path:
    """The utility at equal forgetting, with the utilities of models to compare with as lines, and the hypervolume.

    Contestants that were not tuned are in colour. A hollow mark: not all seeds got to equal forgetting.
    """
    with style():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(7.6, 0.9 + 0.21 * len(found)), width_ratios=(1.4, 1), sharey=True, layout="constrained"
        )
        for place, verdict in enumerate(found):
            color = COLORS[0] if len(verdict.trials) == 1 else OTHERS
            _line(left, place, verdict.utility, color)
            _line(right, place, verdict.score, color)
        left.set_yticks(range(len(found)), [verdict.name for verdict in found])
        for label, verdict in zip(left.get_yticklabels(), found, strict=True):
            if len(verdict.trials) == 1:
                label.set(color=COLORS[0], fontweight="bold")
        left.set_ylim(len(found) - 0.4, -0.6)
        for (name, value), dashes in zip(references, ("--", ":"), strict=False):
            left.axvline(value, color=INK, lw=0.9, ls=dashes, zorder=1, label=f"{name}: {value:.3f}")
        left.set_xlabel("model utility at equal forgetting, higher is better →")
        right.set_xlabel("hypervolume, higher is better →")
        figure.legend(loc="outside lower center", ncols=2)
        (written,) = save(figure, path, formats=("png",))
        plt.close(figure)
    return written


def _line(ax: Axes, place: int, values: Sequence[float], color: str) -> None:
    known = [value for value in values if math.isfinite(value)]
    if known:
        face = color if len(known) == len(values) else "white"
        ax.plot([min(known), max(known)], [place, place], color=color, lw=1.6, alpha=0.6, solid_capstyle="butt")
        ax.plot(mean_of(known), place, color=color, marker="o", mfc=face, ls="none", ms=6, zorder=3)
