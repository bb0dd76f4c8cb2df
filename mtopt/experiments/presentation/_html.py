"""A comparison in a notebook: the ranked table, one row per rule."""

from __future__ import annotations

from mtopt._views import html_table
from mtopt.experiments._results import Results
from mtopt.experiments.presentation._table import score_text, unit_of


def html_of(comparison: Results) -> str:
    """Rules by mean rank, best first; their scores on each task."""
    ranking, tasks = comparison.ranking(), comparison.tasks()
    cells = {(cell.combiner, cell.name): cell for cell in comparison.cells}
    rows = [
        (rule, f"{mean:.2f}", *(score_text(cells.get((rule, name))) for name in tasks))
        for rule, mean in ranking.mean_ranks.items()
    ]
    names = [f"{suite}: {task}{unit_of(group[0].task)}" for (suite, task), group in tasks.items()]
    caption = "hypervolume on the test split (higher is better); mean ± 95 % interval over seeds"
    return html_table(caption, ("rule", "mean rank", *names), rows, note=str(comparison.verdict()))
