"""The leaderboard's tables, from the folder that its comparison was written to.

    python docs/make_leaderboard.py DIR

Writes ``docs/leaderboard/scores.csv`` and ``verdict.csv``, the tables and the verdict between the marks of
``docs/leaderboard.md``, and the figure of ranks. The pages of the rules take their rows from these files.
"""

from __future__ import annotations

import csv
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mtopt.experiments import Comparison

DOCS = Path(__file__).parent
FOLDER = DOCS / "leaderboard"
PAGE = DOCS / "leaderboard.md"
SCORES = ("suite", "task", "combiner", "score", "low", "high", "seeds", "learning_rate", "hyperparameters")
FINDING = (
    "outcome",
    "difference",
    "difference_low",
    "difference_high",
    "ahead",
    "behind",
    "tasks",
    "p_value",
    "p_holm",
)
FIGURES = ("ranking",)


def main(folder: str) -> None:
    """Write all of it."""
    comparison = Comparison(folder)
    FOLDER.mkdir(exist_ok=True)
    scores, verdict = comparison.rows(), ranked(comparison)
    write(FOLDER / "scores.csv", [{name: rounded(row[name]) for name in SCORES} for row in scores])
    write(FOLDER / "verdict.csv", [{name: rounded(value) for name, value in row.items()} for row in verdict])
    page = PAGE.read_text(encoding="utf-8")
    page = replaced(page, "verdict", [str(comparison.verdict().headline), "", *comparison.verdict().limits])
    page = replaced(page, "ranks", table_of_ranks(verdict))
    page = replaced(page, "scores", tables_of_scores(scores, [row["rule"] for row in verdict]))
    PAGE.write_text(page, encoding="utf-8")
    with tempfile.TemporaryDirectory() as drawn:
        for path in comparison.figures(drawn):
            if path.stem in FIGURES and path.suffix == ".png":
                shutil.copy(path, DOCS / "images" / f"leaderboard_{path.name}")


def ranked(comparison: Comparison) -> list[dict[str, Any]]:
    """For each rule its mean rank, its cost over linear's, and what the verdict says; the best rank first."""
    findings = {row["rule"]: row for row in comparison.verdict().rows()}
    costs: dict[str, list[float]] = {}
    base = {(cell.name, cell.combiner): cell.cost("cpu_seconds") for cell in comparison.cells}
    for (task, rule), seconds in base.items():
        if seconds > 0 and base.get((task, "linear"), 0) > 0:
            costs.setdefault(rule, []).append(seconds / base[task, "linear"])
    ranks = sorted(comparison.ranking().mean_ranks.items(), key=lambda pair: pair[1])
    found = []
    for place, (rule, rank) in enumerate(ranks, 1):
        multiples = sorted(costs.get(rule, []))
        cost = multiples[len(multiples) // 2] if multiples else None
        finding = findings.get(rule, {})
        row = {"rule": rule, "place": place, "of": len(ranks), "mean_rank": rank, "cost": cost}
        found.append({**row, **{name: finding.get(name) for name in FINDING}})
    return found


def table_of_ranks(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """One row a rule."""
    lines = [
        "| | rule | mean rank | difference from linear | ahead, behind | p | p (Holm) | CPU |",
        "|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        apart = ["", "", "", ""]
        if row["difference"] is not None:
            between = f"{percent(row['difference_low'])} to {percent(row['difference_high'])}"
            apart[0] = f"{percent(row['difference'])} ({between})"
            apart[1] = f"{row['ahead']}, {row['behind']}"
            apart[2:] = f"{row['p_value']:.2g}", f"{row['p_holm']:.2g}"
        cost = "" if row["cost"] is None else f"{row['cost']:.1f}"
        lines.append(f"| {row['place']} | `{row['rule']}` | {row['mean_rank']:.1f} | {' | '.join(apart)} | {cost} |")
    return lines


def tables_of_scores(rows: Sequence[Mapping[str, Any]], order: Sequence[str]) -> list[str]:
    """For each suite the mean score of every rule on every task, in the order of the ranks."""
    by_place = {(row["suite"], row["task"], row["combiner"]): row["score"] for row in rows}
    lines: list[str] = []
    for suite in dict.fromkeys(row["suite"] for row in rows):
        tasks = list(dict.fromkeys(row["task"] for row in rows if row["suite"] == suite))
        best = {
            task: max(v for (s, t, _), v in by_place.items() if (s, t) == (suite, task) and v == v) for task in tasks
        }
        lines += [f"### {suite}", "", f"| rule | {' | '.join(tasks)} |", f"|---{'|--:' * len(tasks)}|"]
        for rule in order:
            values = [by_place.get((suite, task, rule)) for task in tasks]
            if any(value is not None for value in values):
                cells = [cell(value, best[task]) for value, task in zip(values, tasks, strict=True)]
                lines.append(f"| `{rule}` | {' | '.join(cells)} |")
        lines.append("")
    return lines


def cell(value: float | None, best: float) -> str:
    """A score, bold where it is the best; a word where there is none."""
    if value is None or value != value:
        return "" if value is None else "failed"
    return f"**{value:.3f}**" if value >= best else f"{value:.3f}"


def percent(share: float | None) -> str:
    """A share with its sign, for an end of an interval that is open, too."""
    return "open" if share is None else f"{100 * share:+.1f} %"


def rounded(value: Any) -> Any:
    """Four digits are more than is known."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def replaced(page: str, mark: str, lines: Sequence[str]) -> str:
    """The page with new lines between ``<!-- mark -->`` and ``<!-- end of mark -->``."""
    between = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", re.DOTALL)
    if not between.search(page):
        raise SystemExit(f"{PAGE} has no <!-- {mark} --> and <!-- end of {mark} -->")
    text = "\n".join(lines).strip()
    return between.sub(lambda found: f"{found[1]}\n{text}\n\n{found[2]}", page)


if __name__ == "__main__":
    main(*sys.argv[1:])
