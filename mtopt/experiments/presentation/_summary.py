"""The figures over all tasks: differences from the baseline, ranks, profiles, cost against quality."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mtopt.experiments._baseline import BASELINE
from mtopt.experiments._results import Results
from mtopt.experiments.presentation._pieces import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_THRESHOLDS = 201

COST = "cost"
"""The figure that stands at the page's end."""


def summary_figures(comparison: Results, styles: Mapping[str, Any]) -> Iterator[tuple[str, str, Figure]]:
    """``(kind, caption, figure)``."""
    ranking = comparison.ranking()
    yield (
        "ranking",
        f"Mean ranks; a bar at the right joins rules that cannot be told apart. {ranking}",
        _ranks(comparison, styles),
    )
    if not comparison.verdict().findings:
        return
    yield (
        "differences",
        f"Interquartile mean over all runs of their difference from {BASELINE}'s mean on the task, a share of the "
        "better one's hypervolume, with 95 % bootstrap intervals.",
        _differences(comparison, styles),
    )
    yield (
        "profiles",
        f"Performance profiles: which share of a rule's runs is above {BASELINE}'s mean by more than x, mean over "
        "tasks. Higher is better; where one curve is above another throughout, its runs are better in every part.",
        _profiles(comparison, styles),
    )
    if costs := _costs(comparison):
        yield (
            COST,
            f"CPU time of a step, geometric mean over tasks of the multiples of {BASELINE}'s, against the middle "
            "difference of the verdict.",
            _cost(comparison, costs, styles),
        )


def _ranks(comparison: Results, styles: Mapping[str, Any]) -> Figure:
    from mtopt.plotting import plot_ranking

    ranking = comparison.ranking()
    ax = plot_ranking(
        ranking.mean_ranks,
        xlabel=f"mean rank over {count(ranking.tasks, 'task')} (1 is best)",
        baseline=BASELINE,
        value_format=".2f",
        groups=ranking.cliques,
        styles=styles,
    )
    return _figure(ax)


def _differences(comparison: Results, styles: Mapping[str, Any]) -> Figure:
    from mtopt.plotting import plot_ranking

    found = {one.rule: one.run_gain for one in comparison.verdict().findings}
    ends = {
        rule: (100 * (gain.value if gain.low is None else gain.low), 100 * (gain.high or gain.value))
        for rule, gain in found.items()
    }
    known = any(gain.low is not None for gain in found.values())
    ax = plot_ranking(
        {rule: 100 * gain.value for rule, gain in found.items()},
        ends if known else None,
        interval="95 % bootstrap interval" if known else None,
        xlabel=f"difference from {BASELINE} (%)",
        higher_is_better=True,
        value_format=".1f",
        styles=styles,
    )
    if ax.get_xlim()[0] < 0 < ax.get_xlim()[1]:
        ax.axvline(0.0, color="0.4", linewidth=0.9, linestyle=(0, (4, 2)), zorder=1.2)
    return _figure(ax)


def _profiles(comparison: Results, styles: Mapping[str, Any]) -> Figure:
    from mtopt.plotting import plot_curves

    verdict = comparison.verdict()
    wide = verdict.profiles(np.linspace(-1.0, 1.0, _THRESHOLDS))
    # where anything happens: between the last threshold that all runs pass and the first that none does
    moving = [n for shares in wide.values() for n in np.flatnonzero((shares > 0) & (shares < 1))]
    ends = (min(moving) - 1, max(moving) + 1) if moving else (0, _THRESHOLDS - 1)
    low, high = (2.0 * min(max(n, 0), _THRESHOLDS - 1) / (_THRESHOLDS - 1) - 1.0 for n in ends)
    thresholds = np.linspace(low, high, _THRESHOLDS)
    ax = plot_curves(
        {rule: [(100 * thresholds, shares)] for rule, shares in verdict.profiles(thresholds).items()},
        xlabel=f"difference from {BASELINE}'s mean (%)",
        ylabel="share of runs above",
        styles=styles,
    )
    return _figure(ax)


def _costs(comparison: Results) -> dict[str, float]:
    """The geometric mean over tasks of a step's CPU time, in multiples of the baseline's."""
    ratios: dict[str, list[float]] = {}
    for cells in comparison.tasks().values():
        base = next((cell.cost("cpu_seconds") for cell in cells if cell.combiner == BASELINE), math.nan)
        for cell in cells:
            if base > 0 and cell.cost("cpu_seconds") > 0:
                ratios.setdefault(cell.combiner, []).append(cell.cost("cpu_seconds") / base)
    return {rule: float(np.exp(np.mean(np.log(found)))) for rule, found in ratios.items()}


def _cost(comparison: Results, costs: Mapping[str, float], styles: Mapping[str, Any]) -> Figure:
    from mtopt.plotting import plot_front

    quality = {BASELINE: 0.0, **{one.rule: 100 * one.gain.value for one in comparison.verdict().findings}}
    ax = plot_front(
        {rule: [np.array([[costs[rule], value]])] for rule, value in quality.items() if rule in costs}, styles=styles
    )
    ax.set_xlabel(f"← CPU time of a step, multiples of {BASELINE}'s")
    ax.set_ylabel(f"difference from {BASELINE} (%) →")
    return _figure(ax)


def _figure(ax: Any) -> Figure:
    figure: Figure = ax.figure
    return figure
