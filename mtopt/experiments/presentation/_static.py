"""The baseline's weights in words."""

from __future__ import annotations

from collections.abc import Iterable

from mtopt.experiments._baseline import BASELINE
from mtopt.experiments._results import Cell


def tell_static(cells: Iterable[Cell]) -> str:
    """``best static weights: left 0.3, right 0.7 (of 7 configurations, chosen on validation)`` for a task's cells.

    Empty where there is no baseline among them, and where its run spreads the weights over its trainings.
    """
    cell = next((cell for cell in cells if cell.combiner == BASELINE), None)
    if cell is None or cell.chosen is None:
        return ""
    names = [objective["name"] for objective in cell.task["objectives"]]
    weights = cell.chosen["hyperparameters"].get("preference")
    if weights is None:
        if cell.chosen["points"] > 1 and not cell.swept:
            return ""
        weights = [1 / len(names)] * len(names)
    shares = ", ".join(f"{name} {weight:.3g}" for name, weight in zip(names, weights, strict=False))
    return f"best static weights: {shares} (of {cell.tuned} configurations, chosen on validation)"
