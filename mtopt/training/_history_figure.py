"""A figure of what a history holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from mtopt._text import figure_text, joined
from mtopt.training._columns import Vector

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Recorded(Protocol):
    """What is drawn of a history."""

    @property
    def steps(self) -> npt.NDArray[np.int64]: ...

    @property
    def losses(self) -> dict[str, Vector]: ...

    @property
    def weights(self) -> dict[str, Vector]: ...

    @property
    def norms(self) -> dict[str, Vector]: ...

    @property
    def cosines(self) -> dict[tuple[str, str], Vector]: ...

    @property
    def learning_rates(self) -> Vector: ...

    @property
    def splits(self) -> list[str]: ...

    def evaluations(self, split: str) -> tuple[npt.NDArray[np.int64], dict[str, Vector]]: ...

    def __len__(self) -> int: ...


_POINTS = 200  # of a curve; more steps than that are averaged over windows


def plot_history(history: Recorded) -> Figure:
    """One panel each for losses, evaluations, weights, gradient norms, cosines and learning rate, as far as there are.

    Raises:
        ValueError: the history is empty.
    """
    import matplotlib.pyplot as plt

    from mtopt.plotting import plot_curves, series_styles, style

    if not len(history):
        raise ValueError("the history holds no steps; train first")
    panels = _panels(history)
    columns = 2 if len(panels) > 1 else 1
    rows = -(-len(panels) // columns)
    with style():
        figure = plt.figure(figsize=(5.2 * columns, 2.6 * rows), layout="constrained")
        for place, (label, curves) in enumerate(panels.items(), start=1):
            ax = figure.add_subplot(rows, columns, place)
            shown = {name: [curve] for name, curve in curves.items()}
            alone = len(shown) == 1 and next(iter(shown)) == label
            plot_curves(
                shown,
                ylabel=figure_text(label),
                log="auto",
                styles=series_styles(shown),
                legend=None if alone else "outside",
                ax=ax,
            )
    return figure


def _panels(history: Recorded) -> dict[str, dict[str, tuple[Vector, Vector]]]:
    """By the label of the y axis, and then by name: steps and values of each curve."""
    steps = history.steps.astype(np.float64)
    pairs = {joined(pair): values for pair, values in history.cosines.items()}
    found: dict[str, dict[str, tuple[Vector, Vector]]] = {
        "loss in training": _curves(steps, history.losses),
        **{
            f"value on {split}": _curves(at.astype(np.float64), values)
            for split in history.splits
            for at, values in [history.evaluations(split)]
        },
        "weight": _curves(steps, history.weights),
        "gradient norm": _curves(steps, history.norms),
        "cosine of gradients": _curves(steps, pairs),
        "learning rate": _curves(steps, {"learning rate": history.learning_rates}),
    }
    return {label: curves for label, curves in found.items() if curves}


def _curves(steps: Vector, columns: Mapping[str, Vector]) -> dict[str, tuple[Vector, Vector]]:
    return {name: _thinned(steps, values) for name, values in columns.items() if np.isfinite(values).any()}


def _thinned(steps: Vector, values: Vector) -> tuple[Vector, Vector]:
    """Means over windows of equally many steps, at the middle of each; what is NaN or infinite is left out."""
    kept = np.isfinite(values)
    steps, values = steps[kept], values[kept]
    if len(values) <= _POINTS:
        return steps, values
    size = -(-len(values) // _POINTS)
    starts = np.arange(0, len(values), size)
    counts = np.diff(np.append(starts, len(values)))
    return np.add.reduceat(steps, starts) / counts, np.add.reduceat(values, starts) / counts
