"""The figures of a comparison, drawn from the store alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtopt._text import figure_label, figure_text, file_names
from mtopt.experiments._baseline import BASELINE
from mtopt.experiments._results import Cell, Results
from mtopt.experiments.presentation._pieces import count
from mtopt.experiments.presentation._summary import summary_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mtopt.plotting import Style


MOST_PATHS = 6

MOST_NAMED = 6
"""Rules whose paths can be told apart in one panel; of more, one less are named and the others grey."""

STATIC = "linear, weights 0.1 to 0.9"
"""Legend entry of static scalarization at spread preferences."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One figure; ``task`` is the suite and the task that it is of, None for all of them, ``kind`` what it shows."""

    file_name: str
    task: tuple[str, str] | None
    kind: str
    caption: str
    figure: Figure


def save_figures(comparison: Results, directory: Path) -> list[Path]:
    """Write all figures as PNG and SVG; returns the files."""
    import matplotlib.pyplot as plt

    from mtopt.plotting import save

    files: list[Path] = []
    for drawn in all_figures(comparison):
        files += save(drawn.figure, directory / drawn.file_name)
        plt.close(drawn.figure)
    return files


def all_figures(comparison: Results) -> Iterator[Drawn]:
    """Those over all tasks, then for each task its front, trajectories and loss curves."""
    from mtopt.plotting import style

    styles = report_styles(comparison.combiners)
    with style():
        for kind, caption, figure in summary_figures(comparison, styles):
            yield Drawn(kind, None, kind, caption, figure)
        names = file_names({task: task for task in comparison.tasks()})
        for task, every in comparison.tasks().items():
            cells = [cell for cell in every if cell.runs]
            for kind, caption, figure in _figures_of_task(cells, styles) if cells else ():
                yield Drawn(f"{names[task]}-{kind}", task, kind, caption, figure)


def report_styles(rules: Sequence[str]) -> dict[str, Style]:
    """The looks of the rules, and of static scalarization at spread preferences: linear's grey, but dashed."""
    from mtopt.plotting import rule_styles

    linear = rule_styles(["linear"])["linear"]
    return {**rule_styles(rules), STATIC: replace(linear, marker="d", linestyle="--")}


def _figures_of_task(cells: Sequence[Cell], styles: Mapping[str, Any]) -> Iterator[tuple[str, str, Figure]]:
    """``(kind, caption, figure)``."""
    if cells[0].paths:
        yield "paths", _paths_caption(cells), _paths(cells, styles)
    else:
        yield "front", _front_caption(cells), _front(cells, styles)
    if cells[0].task["landscape"] is not None:
        yield "trajectories", _trajectories_caption(cells), _trajectories(cells, styles)
    yield "curves", _curves_caption(cells), _curves(cells, styles)


def _front(cells: Sequence[Cell], styles: Mapping[str, Any]) -> Figure:
    from mtopt.plotting import plot_front, plot_parallel

    task, labels = cells[0].task, _labels(cells[0].task)
    several = len(cells[0].runs[0]["result"]["points"]["test"]) > 1
    series = {cell.combiner: [_points(run) for run in cell.runs] for cell in cells}
    static = [_points(row) for cell in cells for row in cell.front]
    if static:
        series[STATIC] = [np.concatenate(static)]
    front = None if task["front"] is None else np.array(task["front"])
    if len(task["objectives"]) > 3:
        return _figure(plot_parallel(series, true_front=front, labels=labels, styles=styles))
    ax = plot_front(
        series,
        # a line by increasing f1 means something for two objectives alone
        connect={STATIC} & set(series) if len(task["objectives"]) == 2 else (),
        true_front=front,
        labels=labels,
        spread=not several,
        # with nothing known to compare with, everything there is belongs in the picture
        limits="all" if task["front"] is None else "robust",
        styles=styles,
    )
    return _figure(ax)


def _labels(task: Mapping[str, Any]) -> list[str]:
    """Of the objectives' axes; where the task has none they are the objectives' names, which are no formulas."""
    names = [objective["name"] for objective in task["objectives"]]
    return [
        figure_text(label) if label == name else figure_label(label)
        for label, name in zip(task["labels"], names, strict=True)
    ]


def _front_caption(cells: Sequence[Cell]) -> str:
    points = len(cells[0].runs[0]["result"]["points"]["test"])
    seeds = max(len(cell.runs) for cell in cells)
    if points == 1:
        line = (
            " The line: static scalarization with weights from 0.1 to 0.9 on the tuning seed, from which linear's were "
            "chosen."
        )
        return (
            f"One training a seed ({count(seeds, 'seed')}, faint), their mean and one standard deviation."
            f"{line if any(cell.front for cell in cells) else ''}"
        )
    return f"The {points} end points of every run, {count(seeds, 'seed')}. Black line: the true front."


def _paths(cells: Sequence[Cell], styles: Mapping[str, Any]) -> Figure:
    """Means over seeds at each evaluation, from where training begins to where it ends, a panel for each view."""
    import matplotlib.pyplot as plt

    from mtopt.plotting import plot_trajectories, shared_legend

    task = cells[0].task
    names = [objective["name"] for objective in task["objectives"]]
    senses = {objective["name"]: objective["sense"] for objective in task["objectives"]}
    views = [tuple(view) for view in task["views"]] or [(names[0], names[1])]
    further = {name: figure_label(label) for name, label in task["axis_labels"].items()}
    labels = {**dict(zip(names, _labels(task), strict=True)), **further}
    figure, axes = plt.subplots(
        1, len(views), figsize=(4.4 * len(views) + 1.6, 4.2), layout="constrained", squeeze=False
    )
    for ax, view in zip(axes[0], views, strict=True):
        plot_trajectories(
            {cell.combiner: _mean_path(cell, view) for cell in cells},
            starts=np.empty((0, 2)),
            targets=_landmarks(cells, view),
            labels=[labels.get(name, figure_text(name)) for name in view],
            senses=[senses.get(name) for name in view],
            limits="robust",
            highlight=_highlighted(cells),
            styles=styles,
            legend=None,
            ax=ax,
        )
    shared_legend(axes[0])
    return figure


def _highlighted(cells: Sequence[Cell]) -> list[str] | None:
    """Of many rules the baseline, those that claim to need no tuning, and then the best; None where a few are all told
    apart."""
    if len(cells) <= MOST_NAMED:
        return None
    most = max(cell.tuned for cell in cells)
    untuned = {cell.combiner for cell in cells if cell.tuned == 1 < most}
    score = {cell.combiner: float(np.mean(cell.scores)) for cell in cells}
    order = sorted(score, key=lambda name: (name != BASELINE, name not in untuned, -score[name]))
    return order[: MOST_NAMED - 1]


def _mean_path(cell: Cell, view: Sequence[str]) -> Any:
    """(T, 2): the mean over seeds and trainings of two values at each evaluation."""
    steps = np.mean([[path[name] for name in view] for path in cell.paths], axis=0).T
    start = cell.task["start"]
    return steps if start is None else np.concatenate([_landmarks([cell], view)[start][None], steps])


def _landmarks(cells: Sequence[Cell], view: Sequence[str]) -> dict[str, Any]:
    """The mean over seeds of each point to compare with; every rule has the same ones."""
    known = [run["result"]["landmarks"] for run in cells[0].runs]
    return {
        name: np.mean([[marks[name][axis] for axis in view] for marks in known], axis=0) for name in cells[0].landmarks
    }


def _paths_caption(cells: Sequence[Cell]) -> str:
    steps = cells[0].runs[0]["result"]["paths"][0]["step"]
    named = ""
    if _highlighted(cells) is not None:
        named = " Named are the baseline, what was not tuned, and the best by score; all others are grey."
    return (
        f"Where every {steps[0]} steps of training lead ({len(steps)} evaluations, the mark is the last): means over "
        f"{count(max(len(cell.runs) for cell in cells), 'seed')}, on the test split.{named}"
    )


def _trajectories(cells: Sequence[Cell], styles: Mapping[str, Any]) -> Figure:
    from mtopt.plotting import plot_trajectories

    task = cells[0].task
    land = task["landscape"]
    paths = {
        cell.combiner: [np.array(path) for path in cell.runs[0]["result"]["positions"][:MOST_PATHS]] for cell in cells
    }
    ax = plot_trajectories(
        paths,
        problem_levels=_levels(land),
        pareto_set=np.array(land["pareto_set"]),
        labels=[figure_label(label) for label in task["position_labels"]],
        limits=((land["x"][0], land["x"][-1]), (land["y"][0], land["y"][-1])),
        styles=styles,
    )
    return _figure(ax)


def _levels(land: Mapping[str, Any]) -> Any:
    """The stored grid as a function of the plane."""
    from scipy.interpolate import RegularGridInterpolator

    grid = RegularGridInterpolator((land["x"], land["y"]), np.array(land["z"]), bounds_error=False, fill_value=None)
    return lambda x: torch.from_numpy(grid(x.numpy()))


def _trajectories_caption(cells: Sequence[Cell]) -> str:
    return "Parameters during training, first seed, over the sum of the losses."


def _curves(cells: Sequence[Cell], styles: Mapping[str, Any]) -> Figure:
    import matplotlib.pyplot as plt

    from mtopt.plotting import plot_curves, shared_legend

    # a contestant's options may give it other losses
    curves = [curve for cell in cells for run in cell.runs for curve in run["result"]["curves"]]
    names = [name for name in dict.fromkeys(name for curve in curves for name in curve) if name != "step"]
    columns = min(len(names), 4)
    rows = -(-len(names) // columns)
    size = (3.6 * columns + 1.4, 3.0 * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    panels, spare = grid.ravel()[: len(names)], grid.ravel()[len(names) :]
    for ax in spare:
        ax.remove()
    for ax, name in zip(panels, names, strict=True):
        plot_curves(
            {cell.combiner: drawn for cell in cells if (drawn := _curve(cell, name))},
            ylabel=figure_text(f"{name} (training)"),
            log="auto",
            styles=styles,
            legend=None,
            ax=ax,
        )
    shared_legend(panels)
    return figure


def _curve(cell: Cell, name: str) -> list[tuple[Any, Any]]:
    curves = [curve for run in cell.runs for curve in run["result"]["curves"]]
    return [
        (np.array(curve["step"]), np.array([math.nan if v is None else v for v in curve[name]]))
        for curve in curves
        if name in curve
    ]


def _curves_caption(cells: Sequence[Cell]) -> str:
    trainings = count(sum(len(run["result"]["curves"]) for run in cells[0].runs), "training")
    return f"Training losses: median and quartiles over {trainings} a rule, each at its tuned learning rate."


def _points(run: Mapping[str, Any]) -> Any:
    return np.array(run["result"]["points"]["test"])


def _figure(ax: Any) -> Figure:
    figure: Figure = ax.figure
    return figure
