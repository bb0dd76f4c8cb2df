"""Two rules over the same tasks: how far apart they are, and whether chance explains it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mtopt.experiments.statistics._estimate import Estimate

LEVEL = 0.05
"""Of every test, two-sided."""

Array = npt.NDArray[np.float64]

_DIGITS = 12  # differences of shares: what rounding makes of equal ones is zero


def signed_rank(differences: npt.ArrayLike) -> tuple[Estimate, float]:
    """The middle difference with its interval, and the p-value of "they lie around zero", by Wilcoxon's signed ranks.

    The middle is that of Hodges and Lehmann, the median of the means of all pairs; its interval holds the shifts that
    the test at 5 % leaves, and there is none below six differences. The p-value is exact, two-sided, with ties and
    zeros (Pratt 1959): SciPy goes through all 2^n signs for that, a tenth of a second for ten tasks, and there may be a
    thousand pairs of rules.
    """
    from scipy.stats import rankdata

    found: Array = np.asarray(differences, dtype=np.float64).round(_DIGITS)
    ranks = np.rint(2 * rankdata(np.abs(found))).astype(int)  # twice the ranks: those of ties end in a half
    total = int(ranks[found != 0].sum())
    above = int(ranks[found > 0].sum())
    tail = _sums_of_random_signs(ranks[found != 0])[: min(above, total - above) + 1].sum()
    return _middle(found), min(1.0, 2.0 * float(tail))


def _sums_of_random_signs(ranks: npt.NDArray[np.int64]) -> Array:
    """Probability of each sum of the ranks, every one of which is in it or not with one half."""
    found = np.zeros(int(ranks.sum()) + 1)
    found[0] = 0.5 ** len(ranks)
    for each in ranks:
        found[each:] = found[each:] + found[:-each]
    return found


def _middle(differences: Array) -> Estimate:
    first, second = np.triu_indices(len(differences))
    means = np.sort((differences[first] + differences[second]) / 2)
    untied = _sums_of_random_signs(np.arange(1, len(differences) + 1)).cumsum()
    cut = int((untied <= LEVEL / 2).sum())
    middle = float(np.median(means))
    return Estimate(middle) if cut == 0 else Estimate(middle, float(means[cut - 1]), float(means[-cut]))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values for the question whether any of these differences is there (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    found = np.empty(len(p_values))
    found[order] = adjusted
    return [float(value) for value in found]


def least_p(tasks: int, comparisons: int = 1) -> float:
    """The smallest p-value that signed ranks over so many tasks can give, with Holm's correction."""
    return min(1.0, comparisons * 2.0 ** (1 - tasks))


def fewest_tasks(comparisons: int) -> int:
    """How many tasks it takes until one of so many differences can be significant."""
    return math.floor(1 + math.log2(comparisons / LEVEL)) + 1
