"""Mean ranks over tasks, and which of them cannot be told apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtopt.experiments.statistics._aggregate import gain
from mtopt.experiments.statistics._paired import LEVEL, fewest_tasks, holm, signed_rank


@dataclass(frozen=True, slots=True)
class Ranking:
    """Mean ranks over tasks (1 is best), and how far they can be told apart.

    Attributes:
        mean_ranks: of each rule, best first.
        tasks: number of tasks that ranks were averaged over.
        p_value: Friedman's test of "all rules rank alike"; None with fewer than three rules or two tasks.
        cliques: rules next to one another of which no two are told apart by Wilcoxon's test with Holm's correction over
            all pairs, as many as there can be in each.
    """

    mean_ranks: dict[str, float]
    tasks: int
    p_value: float | None
    cliques: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        """How far the ranks can be told apart, in a sentence or two."""
        rules = len(self.mean_ranks)
        if rules < 2:
            return "There is one rule alone to rank."
        tasks = f"{self.tasks} task{'' if self.tasks == 1 else 's'}"
        if len(self.cliques) == 1 and len(self.cliques[0]) == rules:
            pairs = rules * (rules - 1) // 2
            least = fewest_tasks(pairs)
            why = f" (that takes at least {least} tasks for {rules} rules)" if self.tasks < least else ""
            told = f"No two of the {rules} rules can be told apart by their scores on {tasks}{why}."
        else:
            told = (
                f"Ranks over {tasks}: rules within a group cannot be told apart from one another (Wilcoxon's test with "
                f"Holm's correction over all pairs): {'; '.join(map(', '.join, self.cliques)) or 'there is no group'}."
            )
        friedman = "" if self.p_value is None else f" That all rank alike: Friedman p = {self.p_value:.2g}."
        return told + friedman


def rank(tasks: Sequence[Mapping[str, float]]) -> Ranking:
    """Rank the rules on every task by score, higher is better; a missing or NaN score ranks last (Demšar 2006)."""
    from scipy.stats import friedmanchisquare, rankdata

    rules = sorted({name for task in tasks for name in task})
    scores = np.array([[task.get(name, math.nan) for name in rules] for task in tasks])
    known = np.where(np.isfinite(scores), scores, -np.inf)
    ranks = np.array([rankdata(-row) for row in known])
    means = ranks.mean(0)
    p_value = None
    if len(rules) >= 3 and len(tasks) >= 2:
        # identical rows on all tasks leave the statistic undefined: then nothing tells the rules apart
        p_value = float(friedmanchisquare(*ranks.T).pvalue) if np.ptp(means) > 0 else 1.0
    order = np.argsort(means, kind="stable")
    names = [rules[i] for i in order]
    cliques = _cliques(np.where(np.isfinite(scores), scores, 0.0)[:, order])
    mean_ranks = {rules[i]: float(means[i]) for i in order}
    return Ranking(mean_ranks, len(tasks), p_value, tuple(tuple(names[a:b]) for a, b in cliques))


def _cliques(scores: npt.NDArray[np.float64]) -> list[tuple[int, int]]:
    """The longest ranges of columns of which no two differ, none of them in another."""
    count = scores.shape[1]
    pairs = list(itertools.combinations(range(count), 2))
    p_values = holm([signed_rank(gain(scores[:, i], scores[:, j]))[1] for i, j in pairs])
    apart = np.zeros((count, count), dtype=bool)
    for pair, p in zip(pairs, p_values, strict=True):
        apart[pair] = p < LEVEL
    ranges: list[tuple[int, int]] = []
    for start in range(count):
        end = start + 1
        while end < count and not apart[start : end + 1, end].any():
            end += 1
        if end > start + 1 and (not ranges or end > ranges[-1][1]):
            ranges.append((start, end))
    return ranges
