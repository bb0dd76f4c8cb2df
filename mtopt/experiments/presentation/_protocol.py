"""How the numbers of the page came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtopt.experiments._results import Results
from mtopt.experiments.presentation._pieces import paragraph
from mtopt.experiments.presentation._tables import html_table
from mtopt.experiments.presentation._tuning import tell_tuning


def protocol(comparison: Results) -> str:
    """The budgets, and the protocol in words."""
    request = comparison.request
    most = {name: max(cell.tuned for cell in cells) for name, cells in comparison.tasks().items()}
    budgets = html_table(
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
        paragraph(text)
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
            "The verdict pairs each rule with linear over the tasks, by mean scores over the seeds. A difference is a "
            "share of the better score. Wilcoxon's signed-rank test is exact and two-sided, its interval holds the "
            "shifts that it leaves at 5 %; p (Holm) is corrected for the number of rules, and the other numbers of a "
            "pair follow from the two rules alone. Runs' difference: the interquartile mean over all runs; P(run "
            "ahead): that a run scores above one of linear's on the same task; both with stratified bootstrap "
            "intervals (Agarwal et al., NeurIPS 2021). Ranks are averaged over tasks; rules are told apart by "
            "Wilcoxon's test with Holm's correction over all pairs (Benavoli et al., JMLR 2016).",
            "CPU time and memory were measured in the same runs, one thread each; memory is the most tensor storage "
            "that one step holds beyond what stood before it.",
            f"Made with {environment}.",
        )
    )


def _learning_rates(comparison: Results, budget: Mapping[str, Any]) -> str:
    low, high = comparison.tasks()[budget["suite"], budget["task"]][0].task["learning_rates"]
    return f"{low:g} to {high:g}"
