"""The ranked table on the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mtopt._text import console, terminal_text
from mtopt.experiments._results import Results
from mtopt.experiments.presentation._static import tell_static

_WIDTH = 12
"""Letters of a score with its interval, or some more."""


def print_table(comparison: Results, file: Any = None) -> None:
    """One table a suite, rules by mean rank over everything, best first; then what the figures are."""
    from rich.table import Table

    screen = console(file)
    if not screen.is_terminal:
        screen = console(file, width=120)
    screen.print(terminal_text(comparison.verdict()), highlight=False)
    screen.print()
    ranking = comparison.ranking()
    for suite in comparison.request["suites"]:
        heading = f"{suite['name']}: hypervolume on the test split (higher is better)"
        table = Table(title=terminal_text(heading), title_justify="left")
        table.add_column("rule", no_wrap=True)
        table.add_column("mean rank", justify="right")
        tasks = list(suite["tasks"])
        for task in tasks:
            table.add_column(_head(f"{task['name']}{unit_of(task)}"), justify="right", overflow="fold")
        table.add_column("passes", justify="right")
        for combiner, mean_rank in ranking.mean_ranks.items():
            cells = {
                cell.task["name"]: cell
                for cell in comparison.cells
                if cell.suite == suite["name"] and cell.combiner == combiner
            }
            if not cells:
                continue
            texts = [score_text(cells.get(task["name"])) for task in tasks]
            backwards = sorted({f"{c.cost('backwards_per_step'):.0f}" for c in cells.values() if c.runs})
            table.add_row(terminal_text(combiner), f"{mean_rank:.2f}", *texts, "-".join(backwards))
        screen.print(table)
    screen.print(
        "mean ± 95 % interval over seeds; %: of the whole true front's hypervolume; mean rank: over all tasks; "
        "passes: backward passes per step.",
        highlight=False,
    )
    for (_, task_name), group in comparison.tasks().items():
        if told := tell_static(group):
            screen.print(terminal_text(f"{task_name}: {told}"))
    for cell in comparison.cells:
        for trouble in cell.troubles:
            screen.print(terminal_text(f"{cell.combiner} failed on {cell.task['name']}: {trouble}"))


def _head(name: str) -> Any:
    """A task's name in lines of some ten letters, parted where its words are."""
    lines = [""]
    for word in re.findall(r"[^_/ -]+[_/ -]*", name):
        if lines[-1] and len(lines[-1] + word.rstrip()) > _WIDTH:
            lines.append("")
        lines[-1] += word
    return terminal_text("\n".join(line.rstrip(" ") for line in lines))


def unit_of(task: Mapping[str, Any]) -> str:
    """``" %"`` where scores are shares of the whole front's."""
    return "" if task["front_hypervolume"] is None else " %"


def score_text(cell: Any) -> str:
    """``95.1 ± 0.2``: the score of a cell, in percent where the whole front is known; and how many runs have none."""
    score = None if cell is None else cell.score()
    if score is None:
        return "failed"
    factor, digits = (100.0, 1) if cell.task["front_hypervolume"] is not None else (1.0, 3)
    text = score.text(f".{digits}f", factor)
    return f"{text} ({cell.failed} of {cell.seeds} failed)" if cell.failed else text
