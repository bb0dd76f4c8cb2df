"""One page that opens offline: tables, figures, protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtopt._text import html_text
from mtopt.experiments._results import Cell, Results
from mtopt.experiments.presentation._figures import all_figures, count
from mtopt.experiments.presentation._interactive import SCRIPT, STYLE, interactive
from mtopt.experiments.presentation._static import tell_static
from mtopt.experiments.presentation._table import score_text
from mtopt.experiments.presentation._tuning import tell_tuning
from mtopt.files import write_text

_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; font-size: .9rem; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #e5e5e5; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #999; vertical-align: bottom }
figure { margin: 1.5rem 0 } figure svg { max-width: 100%; height: auto } figcaption { color: #555; font-size: .9rem }
.note { color: #555; font-size: .9rem }
.warn { background: #fff4e0; padding: .6rem 1rem; border-left: 4px solid #e69f00 }
code { font-size: .88em; background: #f5f5f5; padding: 0 .2em } td.config { white-space: normal; text-align: left }
"""


def write_report(comparison: Results, path: Path, *, figures: Path | None = None) -> Path:
    """Write the page to ``path`` and return it; the figures go to the folder ``figures``, too, if it is given."""
    return write_text(path, page(comparison, figures))


def page(comparison: Results, directory: Path | None = None) -> str:
    """The whole page: no script, no font and no picture from elsewhere, and readable without its script."""
    import matplotlib.pyplot as plt

    from mtopt.plotting import save, to_svg

    tasks = comparison.tasks()
    figures: dict[tuple[str, str] | None, list[str]] = {}
    for drawn in all_figures(comparison):
        # an SVG that is written as a file is not drawn a second time
        source = drawn.figure if directory is None else save(drawn.figure, directory / drawn.file_name)[-1]
        shown = None
        if drawn.task is not None and drawn.kind == "front":
            shown = interactive(drawn.figure, tasks[drawn.task], drawn.caption)
        figures.setdefault(drawn.task, []).append(shown or _figure(to_svg(source, title=drawn.caption), drawn.caption))
        plt.close(drawn.figure)
    suites = " and ".join(suite["name"] for suite in comparison.request["suites"])
    parts = [
        f"<h1>Gradient-combination rules on {html_text(suites)}</h1>",
        _lead(comparison),
        "<h2>Ranking</h2>",
        *figures[None],
        _ranking_table(comparison),
    ]
    for suite in comparison.request["suites"]:
        parts += [f"<h2>{html_text(suite['name'])}</h2>", _paragraph(suite["about"])]
        for task in suite["tasks"]:
            cells = tasks[suite["name"], task["name"]]
            parts += [
                f"<h3>{html_text(task['title'])}</h3>",
                *figures.get((suite["name"], task["name"]), ()),
                _task_table(cells),
                _paragraph(tell_static(cells)),
                *_errors(cells),
            ]
    parts += ["<h2>How this was measured</h2>", _protocol(comparison)]
    body = "\n".join(parts)
    title = html_text(f"mtopt: {suites}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}{STYLE}</style></head>\n'
        f"<body>\n{body}\n<script>{SCRIPT}</script>\n</body></html>\n"
    )


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{html_text(caption)}</figcaption></figure>"


def _lead(comparison: Results) -> str:
    quick = (
        '<p class="warn">A quick comparison: small budgets, few seeds. It shows how the rules behave; it is no result '
        "to publish. Run it without <code>--quick</code> for that.</p>"
        if comparison.request["quick"]
        else ""
    )
    return quick + _paragraph(
        f"{len(comparison.combiners)} rules on {count(len(comparison.tasks()), 'task')}, every rule with the same "
        "tuning budget (beside it linear tries some static weights, where a run is not itself a spread of them). "
        "Score: hypervolume on the test split (the share of objective space, up to the reference point, "
        "that a run's points dominate; higher is better), in percent of the whole true front's where that is known."
    )


def _ranking_table(comparison: Results) -> str:
    tasks = comparison.tasks()
    header = ["rule", "mean rank", *(task for _, task in tasks)]
    rows = []
    for combiner, mean_rank in comparison.ranking().mean_ranks.items():
        cells = [next((c for c in group if c.combiner == combiner), None) for group in tasks.values()]
        rows.append([combiner, f"{mean_rank:.2f}", *(score_text(cell) for cell in cells)])
    return _table(header, rows) + '<p class="note">Mean ± 95 % Student interval over seeds.</p>'


def _task_table(cells: Sequence[Cell]) -> str:
    metrics = sorted({name for cell in cells for run in cell.runs for name in run["result"]["metrics"]})
    baseline = next((cell for cell in cells if cell.combiner == "linear"), cells[0])
    header = [
        "rule",
        "score",
        *(name for name in metrics),
        "conflicts",
        "cosine",
        "skipped",
        "passes",
        "time ×",
        "memory ×",
        "configuration",
    ]
    rows = []
    for cell in sorted(cells, key=lambda c: -(s.mean if (s := c.score()) is not None else -math.inf)):
        if not cell.runs:
            rows.append([cell.combiner, "failed", *[""] * (len(header) - 2)])
            continue
        conflicts = _seen(cell, "conflict_rate")
        cosines = _seen(cell, "cosine")
        rows.append(
            [
                cell.combiner,
                score_text(cell),
                *(str(cell.metric(name) or "") for name in metrics),
                f"{100 * sum(conflicts) / len(conflicts):.0f} %" if conflicts else "not seen",
                f"{sum(cosines) / len(cosines):.2f}" if cosines else "",
                str(sum(run["result"]["skipped"] for run in cell.runs)),
                f"{cell.cost('backwards_per_step'):.0f}",
                _ratio(cell.cost("cpu_seconds"), baseline.cost("cpu_seconds")),
                _ratio(cell.cost("peak_bytes"), baseline.cost("peak_bytes")),
                _configuration(cell),
            ]
        )
    rows += [
        [
            name,
            "",
            *(_mean_landmark(cells[0], name, metric) for metric in metrics),
            *[""] * (len(header) - 2 - len(metrics)),
        ]
        for name in cells[0].landmarks
    ]
    last = "Columns after the score: at the end of training. " if any(c.paths for c in cells) else ""
    return _table(header, rows) + (
        f'<p class="note">{last}Conflicts: share of the steps with gradients at an obtuse angle. Cosine: the mean one '
        "between the gradients of two objectives, each in the direction that worsens it. Skipped: steps with a NaN or "
        "infinite gradient. Passes: backward passes a step. Time, memory: CPU time and peak memory of a step, in "
        "multiples of linear's.</p>"
    )


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


def _errors(cells: Sequence[Cell]) -> Iterable[str]:
    for cell in cells:
        for trouble in cell.troubles:
            yield f'<p class="warn"><b>{html_text(cell.combiner)}</b> failed: {html_text(trouble)}</p>'


def _protocol(comparison: Results) -> str:
    request = comparison.request
    most = {name: max(cell.tuned for cell in cells) for name, cells in comparison.tasks().items()}
    budgets = _table(
        ["task", "steps a training", "evaluations", "trainings a run", "trials a rule", "seeds", "learning rates"],
        [
            [
                f"{b['suite']}/{b['task']}",
                str(b["steps"]),
                str(b["evaluations"]),
                str(b["points"]),
                str(b["trials"]),
                str(b["seeds"]),
                _learning_rates(comparison, b),
            ]
            for b in request["budgets"]
        ],
    )
    untuned = list(dict.fromkeys(c.combiner for c in comparison.cells if c.tuned == 1 < most[c.name]))
    environment = ", ".join(f"{name} {value}" for name, value in request["environment"].items())
    return budgets + "".join(
        _paragraph(text)
        for text in (
            tell_tuning(request),
            "Static scalarization got more than that: once its learning rate was chosen it also tried weights spread "
            "over the simplex (five for two objectives, ten for more), and the best of all static weights on the "
            "validation split is the baseline. Tasks whose runs are several trainings spread the weights over these.",
            *(
                ["Tried one configuration alone, as what they claim is to need no tuning: " + ", ".join(untuned) + "."]
                if untuned
                else []
            ),
            "A training that is evaluated several times offers all the models it went through, and its run is judged "
            "by the whole set of them.",
            "A run of several trainings is judged as a set: they start from different points, the same for every rule, "
            "and a rule that takes a preference gets a different one for each. A rule that takes none cannot be told "
            "where on the front to end.",
            "Ranks are averaged over tasks; Friedman's test and Nemenyi's critical difference follow Demšar (2006). "
            "CPU time and memory were measured in the same runs, one thread each; memory is the most tensor storage "
            "that one step holds beyond what stood before it.",
            f"Made with {environment}.",
        )
    )


def _learning_rates(comparison: Results, budget: Mapping[str, Any]) -> str:
    low, high = comparison.tasks()[budget["suite"], budget["task"]][0].task["learning_rates"]
    return f"{low:g} to {high:g}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html_text(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _paragraph(text: str) -> str:
    return f"<p>{html_text(text)}</p>" if text else ""
