"""Utility over the starting rate, a line for each method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from mtopt.plotting import Style, save, series_styles, style

from .results import arms_of
from .training import Row

TITLES = {"memorised": "target knows its data by heart", "third": "a third of the fine-tuning"}


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Above at equal forgetting, below after the budget; a column for each world and optimizer; means over the seeds.

    A marker is filled where at least half of the seeds forget; above, the others count as 0.
    """
    arms = list(arms_of(rows))
    looks = series_styles(list(dict.fromkeys(row.case.method for row in rows)))
    with style():
        figure, axes = plt.subplots(
            2,
            len(arms),
            figsize=(3.1 * len(arms), 6.2),
            sharey="row",
            sharex="col",
            layout="constrained",
            squeeze=False,
        )
        for column, ((world, optimizer), own) in zip(axes.T, arms, strict=True):
            untouched = float(np.mean([row.untouched for row in own]))
            for ax in column:
                ax.axhline(untouched, color="#888888", linewidth=0.8, linestyle=":")
                ax.set_xscale("log")
                ax.set_ylim(-0.02, 1.15 * max(row.untouched for row in rows))
            for method, look in looks.items():
                cases = [row for row in own if row.case.method == method]
                _line(
                    column[0],
                    look,
                    cases,
                    [row.equal or 0.0 for row in cases],
                    [row.equal is not None for row in cases],
                )
                _line(column[1], look, cases, [row.end for row in cases], [row.forgotten for row in cases])
                column[0].plot([], [], color=look.color, linestyle=look.linestyle, marker=look.marker, label=method)
            column[0].set_title(f"{TITLES[world]},\n{'SGD' if optimizer == 'sgd' else 'AdamW'}")
            column[1].set_xlabel("starting learning rate")
        axes[0, 0].set_ylabel("model utility at equal forgetting")
        axes[1, 0].set_ylabel("model utility at the end")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6))
        (written,) = save(figure, path, formats=("png",))
        plt.close(figure)
    return written


def _line(ax: Axes, look: Style, rows: Sequence[Row], utilities: Sequence[float], forgets: Sequence[bool]) -> None:
    """Means over the rows of the same rate."""
    rates = np.array([row.case.rate for row in rows])
    places = np.unique(rates)
    means = [np.mean(np.asarray(utilities)[rates == rate]) for rate in places]
    ax.plot(places, means, color=look.color, linestyle=look.linestyle, linewidth=1.2, zorder=2)
    for rate, mean in zip(places, means, strict=True):
        filled = np.mean(np.asarray(forgets)[rates == rate]) >= 0.5
        face = look.color if filled else "white"
        ax.plot(rate, mean, marker=look.marker, color=look.color, markerfacecolor=face, markersize=4.5, zorder=3)
