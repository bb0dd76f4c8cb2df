"""Utility at equal forgetting, read off a finished comparison: ``python -m mtopt_suites.unlearning.verdict DIR``.

The claim of NGDiff's paper is a better utility at equal forgetting, without tuning. Equal forgetting is taken as the
ROUGE-L recall that the model retrained without the forget set has on it: MUSE stops a method where it first gets there.
Between two evaluations a training is taken as a straight line, so that none is favoured by when it was looked at.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtopt.experiments import Comparison

from .._command import run_command
from .tofu_task import GAP, ROUGE, UTILITY
from .unlearning_task import BEFORE, RETRAINED

LEVEL = 0.05
"""Forget qualities above it: the truth ratios cannot be told from the retrained model's at 5 %."""


@dataclass(frozen=True)
class Verdict:
    """What one contestant's runs say, one value per seed.

    Attributes:
        name: the contestant.
        score: hypervolume of the run.
        utility: where forgetting is first equal to the retrained model's; NaN where a training never got there.
        indistinguishable: the best utility of an evaluation with a forget quality above 5 %; NaN without one.
        trials: scores of the configurations that were tried in tuning.
    """

    name: str
    score: tuple[float, ...]
    utility: tuple[float, ...]
    indistinguishable: tuple[float, ...]
    trials: tuple[float, ...]


def verdicts(comparison: Comparison, task: str = "tofu") -> list[Verdict]:
    """Of every contestant that finished: who got there in most seeds first, and of those the highest utility there.

    Raises:
        ValueError: the comparison has no finished run of that task.
    """
    found: list[Verdict] = []
    for cell, entry in zip(comparison.cells, comparison.request["cells"], strict=True):
        if cell.task["name"] != task or not cell.runs:
            continue
        tuned = comparison.store.results(entry["tune"]).values()
        results = [run["result"] for run in cell.runs]
        found.append(
            Verdict(
                cell.combiner,
                tuple(cell.score_of(run) for run in cell.runs),
                tuple(utility_at_equal_forgetting(result["paths"][0], result["landmarks"]) for result in results),
                tuple(best_indistinguishable(result["paths"][0]) for result in results),
                tuple(row["result"]["score"]["validation"] for row in tuned if row["status"] == "done"),
            )
        )
    if not found:
        tasks = sorted({cell.task["name"] for cell in comparison.cells})
        raise ValueError(f"the comparison has no finished run of the task {task!r}; its tasks: {', '.join(tasks)}")
    return sorted(found, key=lambda verdict: (-np.isfinite(verdict.utility).sum(), -mean_of(verdict.utility)))


def utility_at_equal_forgetting(
    path: Mapping[str, Sequence[float]], landmarks: Mapping[str, Mapping[str, float]]
) -> float:
    """The utility where a training's ROUGE-L on the forget set first comes down to the retrained model's; NaN if
    never."""
    wanted = landmarks[RETRAINED][ROUGE]
    rouge = [landmarks[BEFORE][ROUGE], *path[ROUGE]]
    utility = [landmarks[BEFORE][UTILITY], *path[UTILITY]]
    for after in range(1, len(rouge)):
        if rouge[after] <= wanted:
            share = (rouge[after - 1] - wanted) / (rouge[after - 1] - rouge[after])
            return utility[after - 1] + share * (utility[after] - utility[after - 1])
    return math.nan


def best_indistinguishable(path: Mapping[str, Sequence[float]]) -> float:
    """The best utility of the evaluations whose forget quality exceeds 5 %; NaN without one."""
    reached = [u for u, p in zip(path[UTILITY], path["forget quality"], strict=True) if p > LEVEL]
    return max(reached, default=math.nan)


def table(comparison: Comparison, task: str = "tofu") -> str:
    """A Markdown table of :func:`verdicts`, with the retrained model's utility below."""
    lines = [
        "| contestant | utility at equal forgetting | utility, forget quality > 5 % | hypervolume | of its trials |",
        "|---|---|---|---|---|",
    ]
    for verdict in verdicts(comparison, task):
        columns = (_text(verdict.utility), _text(verdict.indistinguishable), _text(verdict.score))
        trials = f"{min(verdict.trials):.3f} to {max(verdict.trials):.3f}" if len(verdict.trials) > 1 else "one setting"
        lines.append(f"| {verdict.name} | {' | '.join(columns)} | {trials} |")
    for name, marks in references(comparison, task).items():
        lines.append(f"\n{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in marks.items()))
    return "\n".join(lines)


def references(comparison: Comparison, task: str = "tofu") -> dict[str, dict[str, float]]:
    """What the models before unlearning and retrained have, means over the seeds."""
    runs = next(cell for cell in comparison.cells if cell.task["name"] == task and cell.runs).runs
    return {
        name: {key: mean_of([run["result"]["landmarks"][name][key] for run in runs]) for key in (UTILITY, GAP, ROUGE)}
        for name in (BEFORE, RETRAINED)
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and draw it where asked to."""
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.verdict", description=str(__doc__).split("\n")[0])
    parser.add_argument("directory", help="what mtopt compare unlearning wrote")
    parser.add_argument("--figure", type=Path, help="a PNG file, without its ending, to draw the verdict into")
    options = parser.parse_args(arguments)
    comparison = Comparison(options.directory)
    print(table(comparison))
    if options.figure is not None:
        from .verdict_figure import draw

        utilities = [(name, marks[UTILITY]) for name, marks in references(comparison).items()]
        print(draw(verdicts(comparison), utilities, options.figure))


def mean_of(values: Sequence[float]) -> float:
    """Over the seeds that have a value; NaN where none has."""
    finite = [value for value in values if math.isfinite(value)]
    return float(np.mean(finite)) if finite else math.nan


def _text(values: Sequence[float]) -> str:
    """Mean, lowest and highest over the seeds, and in how many of them there is a value."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "never"
    missing = f", {len(finite)} of {len(values)} seeds" if len(finite) < len(values) else ""
    return f"{np.mean(finite):.3f} ({min(finite):.3f} to {max(finite):.3f}{missing})"


if __name__ == "__main__":
    run_command(main)
