"""Utility over the starting rate, a line for each method."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from mtopt.plotting import Style, save, style
from mtopt.plotting.layout import key
from mtopt.plotting.rule_style import COLORS, LINESTYLES, MARKERS

from ..methods import method
from .results import KEPT, arms_of
from .training import Row

TITLES = {"memorised": "knows its data by heart", "third": "a third of the fine-tuning"}
OPTIMIZERS = {"sgd": "SGD", "adamw": "AdamW"}
_BAND: dict[str, Any] = {"color": "#009E73", "alpha": 0.12, "linewidth": 0}
CONSTANT = "#8C8C8C"
"""The grey of the methods whose rate stays what it was at first."""


def draw(rows: Sequence[Row], path: Path) -> Path:
    """Above at equal forgetting, below after the budget; a column for each world and optimizer; means over the seeds.

    Methods that adapt their rate are in colour, all others grey. A marker is filled where at least half of the seeds
    forget; above, the others count as 0. What keeps 90 % of the utility before unlearning is in the shaded band.
    """
    arms = list(arms_of(rows))
    looks = _looks(list(dict.fromkeys(row.case.method for row in rows)))
    seeds = len({row.case.seed for row in rows})
    with style():
        size = (2.35 * len(arms), 4.9)
        figure, axes = plt.subplots(
            2, len(arms), figsize=size, sharey=True, sharex="col", layout="constrained", squeeze=False
        )
        for column, ((world, optimizer), own) in zip(axes.T, arms, strict=True):
            untouched = float(np.mean([row.untouched for row in own]))
            for ax in column:
                ax.axhspan(KEPT * untouched, untouched, **_BAND)
                ax.set_xscale("log")
                ax.set_ylim(-0.02, 1.08 * max(row.untouched for row in rows))
            for name, look in looks.items():
                cases = [row for row in own if row.case.method == name]
                forgot_once = [row.equal is not None for row in cases]
                _line(column[0], look, cases, [row.equal or 0.0 for row in cases], forgot_once)
                _line(column[1], look, cases, [row.end for row in cases], [row.forgotten for row in cases])
            column[0].set_title(f"{TITLES[world]},\n{OPTIMIZERS[optimizer]}", fontsize=9)
        for ax, when in zip(axes[:, 0], ("at equal forgetting", "at the end"), strict=True):
            ax.set_ylabel(f"model utility →\n{when}")
        for ax in axes[1]:
            ax.set_xlabel("first learning rate")
        handles: list[Artist] = [key(name, **_line_look(look), marker=look.marker) for name, look in looks.items()]
        handles.append(Rectangle((0, 0), 1, 1, label=f"at least {KEPT:.0%} is kept", **_BAND))
        forgotten = "it has forgotten" if seeds == 1 else f"at least half of the {seeds} seeds have forgotten"
        figure.legend(handles=handles, loc="outside lower center", ncols=3, title=f"filled marker: {forgotten}")
        (written,) = save(figure, path, formats=("png",))
        plt.close(figure)
    return written


def _looks(methods: Sequence[str]) -> dict[str, Style]:
    colors, dashes = cycle(COLORS), cycle(LINESTYLES[1:])
    looks = {}
    for name, marker in zip(methods, cycle(MARKERS), strict=False):
        automatic = method(name).automatic_rate is not None
        looks[name] = Style(*(next(colors), marker, "-") if automatic else (CONSTANT, marker, next(dashes)))
    return looks


def _line_look(look: Style) -> dict[str, Any]:
    width = 1.0 if look.color == CONSTANT else 1.5
    return {"color": look.color, "linestyle": look.linestyle, "linewidth": width, "markersize": 3.8}


def _line(ax: Axes, look: Style, rows: Sequence[Row], utilities: Sequence[float], forgets: Sequence[bool]) -> None:
    """Means over the rows of the same rate."""
    rates = np.array([row.case.rate for row in rows])
    places = np.unique(rates)
    means = [np.mean(np.asarray(utilities)[rates == rate]) for rate in places]
    order = 2 if look.color == CONSTANT else 4
    ax.plot(places, means, zorder=order, **_line_look(look))
    for rate, mean in zip(places, means, strict=True):
        filled = np.mean(np.asarray(forgets)[rates == rate]) >= 0.5
        face = look.color if filled else "white"
        ax.plot(rate, mean, marker=look.marker, markerfacecolor=face, zorder=order + 1, **_line_look(look))
