"""The tables of the page."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from mtopt._text import html_text
from mtopt.experiments._baseline import BASELINE
from mtopt.experiments._results import Cell, Results
from mtopt.experiments.presentation._table import score_text, unit_of

CONFIGURATION = "configuration"
"""The column whose texts are long, and are broken into lines."""


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, cards: bool = False) -> str:
    """A table that scrolls by itself where it is wider than the page; ``cards``: on a narrow page a block for each row.

    A click on a head sorts it, where there is something to sort.
    """
    marks = [' class="config"' if name == CONFIGURATION else "" for name in header]
    labels = [f' data-label="{html_text(name)}"' if cards and n else "" for n, name in enumerate(header)]
    kind = " ".join([*(["cards"] if cards else []), *(["sortable"] if len(rows) > 1 else [])])
    head = "".join(f"<th{mark}>{html_text(name)}</th>" for name, mark in zip(header, marks, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{mark}{label}>{html_text(text)}</td>" for text, mark, label in zip(row, marks, labels, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="table"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def ranking_table(comparison: Results) -> str:
    """Every rule's score on each task, by mean rank."""
    tasks = comparison.tasks()
    rows = []
    for combiner, mean_rank in comparison.ranking().mean_ranks.items():
        cells = [next((c for c in group if c.combiner == combiner), None) for group in tasks.values()]
        rows.append([combiner, f"{mean_rank:.2f}", *(score_text(cell) for cell in cells)])
    names = [f"{task}{unit_of(cells[0].task)}" for (_, task), cells in tasks.items()]
    return html_table(["rule", "mean rank", *names], rows)


def task_table(cells: Sequence[Cell]) -> str:
    """What every rule came to on one task, with which configuration and at what cost; the best first."""
    metrics = sorted({name for cell in cells for run in cell.runs for name in run["result"]["metrics"]})
    baseline = next((cell for cell in cells if cell.combiner == BASELINE), cells[0])
    header = ["rule", "score", CONFIGURATION, *metrics]
    header += ["conflicts", "cosine", "skipped", "passes", "time\u00a0×", "memory\u00a0×"]
    best_first = sorted(cells, key=lambda c: -(s.value if (s := c.score()) is not None else -math.inf))
    rows = [_row(cell, metrics, baseline) for cell in best_first]
    rows += [
        [name, "", "", *(_mean_landmark(cells[0], name, metric) for metric in metrics), *[""] * 6]
        for name in cells[0].landmarks
    ]
    last = "Columns after the configuration: at the end of training. " if any(c.paths for c in cells) else ""
    return html_table(header, rows, cards=True) + (
        f'<p class="note">{last}Conflicts: share of the steps with gradients at an obtuse angle. Cosine: the mean one '
        "between the gradients of two objectives, each in the direction that worsens it. Skipped: steps with a NaN or "
        "infinite gradient. Passes: backward passes per step. Time, memory: CPU time and peak memory of a step, in "
        "multiples of linear's.</p>"
    )


def _row(cell: Cell, metrics: Sequence[str], baseline: Cell) -> list[str]:
    if not cell.runs:
        return [cell.combiner, "failed", *[""] * (len(metrics) + 7)]
    conflicts, cosines = _seen(cell, "conflict_rate"), _seen(cell, "cosine")
    return [
        cell.combiner,
        score_text(cell),
        _configuration(cell),
        *(str(cell.metric(name) or "") for name in metrics),
        f"{100 * sum(conflicts) / len(conflicts):.0f} %" if conflicts else "not seen",
        f"{sum(cosines) / len(cosines):.2f}" if cosines else "",
        str(sum(run["result"]["skipped"] for run in cell.runs)),
        f"{cell.cost('backwards_per_step'):.0f}",
        _ratio(cell.cost("cpu_seconds"), baseline.cost("cpu_seconds")),
        _ratio(cell.cost("peak_bytes"), baseline.cost("peak_bytes")),
    ]


def _seen(cell: Cell, what: str) -> list[float]:
    """A statistic of the runs that have it; a rule that needs no gradients of single losses may have none."""
    return [run["result"][what] for run in cell.runs if run["result"][what] is not None]


def _mean_landmark(cell: Cell, name: str, metric: str) -> str:
    values = [run["result"]["landmarks"][name].get(metric) for run in cell.runs]
    return "" if None in values or not values else f"{sum(values) / len(values):.4g}"


def _configuration(cell: Cell) -> str:
    if cell.chosen is None:
        return ""
    settings = {"learning rate": cell.chosen["learning_rate"], **cell.chosen["hyperparameters"], **cell.options}
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in settings.items())


def _ratio(value: float, base: float) -> str:
    return f"{value / base:.2f}" if base > 0 and math.isfinite(value) else ""
