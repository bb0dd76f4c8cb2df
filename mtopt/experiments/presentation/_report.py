"""One page that opens offline: the verdict, tables, figures, protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mtopt._text import html_text
from mtopt.experiments._results import Cell, Results
from mtopt.experiments.presentation._figures import Drawn, all_figures
from mtopt.experiments.presentation._interactive import SCRIPT, interactive
from mtopt.experiments.presentation._interactive import STYLE as STYLE_OF_RUNS
from mtopt.experiments.presentation._pieces import count, in_panels, paragraph
from mtopt.experiments.presentation._protocol import protocol
from mtopt.experiments.presentation._static import tell_static
from mtopt.experiments.presentation._style import SORTING, STYLE
from mtopt.experiments.presentation._summary import COST
from mtopt.experiments.presentation._tables import html_table, ranking_table, task_table
from mtopt.files import write_text

Place = tuple[str, str] | None
"""Suite and task; None for what is over all tasks."""


def write_report(comparison: Results, path: Path, *, figures: Path | None = None) -> Path:
    """Write the page to ``path`` and return it; the figures go to the folder ``figures``, too, if it is given."""
    return write_text(path, page(comparison, figures))


def page(comparison: Results, directory: Path | None = None) -> str:
    """The whole page: no script, no font and no picture from elsewhere, and readable without its script."""
    tasks = comparison.tasks()
    figures = _draw(comparison, directory)
    over_all = figures.pop(None)
    cost = over_all.pop(COST, None)
    suites = " and ".join(suite["name"] for suite in comparison.request["suites"])
    parts = [
        f"<h1>Gradient-combination rules on {html_text(suites)}</h1>",
        *_verdict(comparison),
        "<h2>All tasks</h2>",
        *_lead(comparison),
        ranking_table(comparison),
        '<p class="note">Mean and 95 % Student interval over seeds.</p>',
        f'<div class="panels">{"".join(over_all.values())}</div>',
    ]
    for suite in comparison.request["suites"]:
        parts += [f"<h2>{html_text(suite['name'])}</h2>", paragraph(suite["about"])]
        for task in suite["tasks"]:
            cells = tasks[suite["name"], task["name"]]
            parts += [
                f"<h3>{html_text(task['title'])}</h3>",
                task_table(cells),
                paragraph(tell_static(cells)),
                *_errors(cells),
                *figures.get((suite["name"], task["name"]), {}).values(),
            ]
    if cost is not None:
        parts += ["<h2>Cost against quality</h2>", cost]
    parts += ["<h2>How this was measured</h2>", protocol(comparison)]
    body = "\n".join(parts)
    title = html_text(f"mtopt: {suites}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><style>{STYLE}{STYLE_OF_RUNS}</style></head>\n'
        f"<body>\n{body}\n<script>{SCRIPT}{SORTING}</script>\n</body></html>\n"
    )


def _draw(comparison: Results, directory: Path | None) -> dict[Place, dict[str, str]]:
    """For each task, and over all of them, the ``<figure>`` of every kind."""
    import matplotlib.pyplot as plt

    from mtopt.plotting import save

    tasks = comparison.tasks()
    figures: dict[Place, dict[str, str]] = {}
    for drawn in all_figures(comparison):
        # an SVG that is written as a file is not drawn a second time
        file = None if directory is None else save(drawn.figure, directory / drawn.file_name)[-1]
        figures.setdefault(drawn.task, {})[drawn.kind] = _figure(drawn, file, tasks)
        plt.close(drawn.figure)
    return figures


def _figure(drawn: Drawn, file: Path | None, tasks: Mapping[tuple[str, str], Sequence[Cell]]) -> str:
    from mtopt.plotting import panels_to_svg, to_svg

    if drawn.task is not None and drawn.kind == "front":
        shown = interactive(drawn.figure, tasks[drawn.task], drawn.caption)
        if shown is not None:
            return shown
    panels = panels_to_svg(drawn.figure)
    shown = in_panels(panels) if len(panels) > 1 else to_svg(file or drawn.figure, title=drawn.caption)
    return f"<figure>{shown}<figcaption>{html_text(drawn.caption)}</figcaption></figure>"


def _verdict(comparison: Results) -> Iterable[str]:
    verdict = comparison.verdict()
    yield f'<p class="verdict">{html_text(verdict.headline)}</p>'
    if verdict.details:
        yield f"<ul>{''.join(f'<li>{html_text(line)}</li>' for line in verdict.details)}</ul>"
    yield from map(paragraph, verdict.limits)
    if comparison.request["quick"]:
        yield (
            '<p class="warn">A quick comparison: small budgets, few seeds. It shows how the rules behave; it is no '
            "result to publish. Run it without <code>--quick</code> for that.</p>"
        )
    if verdict.findings:
        yield html_table(verdict.columns, verdict.table(), cards=True)


def _lead(comparison: Results) -> Iterable[str]:
    yield paragraph(
        f"{count(len(comparison.combiners), 'rule')} on {count(len(comparison.tasks()), 'task')}, every rule with the "
        "same tuning budget (beside it linear tries some static weights, where a run is not itself a spread of them). "
        "Score: hypervolume on the test split (the share of objective space, up to the reference point, "
        "that a run's points dominate; higher is better), in percent of the whole true front's where that is known."
    )


def _errors(cells: Sequence[Cell]) -> Iterable[str]:
    for cell in cells:
        for trouble in cell.troubles:
            yield f'<p class="warn"><b>{html_text(cell.combiner)}</b> failed: {html_text(trouble)}</p>'
