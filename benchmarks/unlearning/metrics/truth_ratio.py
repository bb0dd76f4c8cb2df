"""TOFU's truth ratio, utility and forget quality, from per-item losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import hmean, ks_2samp

DEFINITIONS = ("tofu-code", "paper", "openunlearning")
EPSILON = 1e-10


def log_truth_ratio(right: float, wrong: Sequence[float], definition: str = "tofu-code") -> float:
    """log R, where R compares the probability of the wrong answers with that of the right one; 0 is indifference.

    With l the loss of an answer (mean -log p over its tokens and the end) and P = exp(-l):

    - ``"tofu-code"``: R = exp(-mean_j l(wrong_j)) / (P(right) + 1e-10), the *geometric* mean over the wrong answers, as
      open-unlearning's code has it.
    - ``"paper"``: R = mean_j P(wrong_j) / P(right), the *arithmetic* mean, as TOFU's text says.
    - ``"openunlearning"``: R as in ``"tofu-code"``; what differs is :func:`aggregate`.

    The logarithm is returned because R itself leaves the range of floats on models that have been unlearned too far;
    the forget quality compares ranks and so is the same. Where such values underflow in upstream code they tie, here
    they do not.

    Args:
        right: The loss of the paraphrased answer, or of the answer in sets that have no paraphrase.
        wrong: The losses of the perturbed answers, at least one.
    """
    _known(definition)
    losses = np.asarray(wrong, dtype=np.float64)
    if definition == "paper":
        return float(np.logaddexp.reduce(-losses) - np.log(len(losses)) + right)
    return float(-losses.mean() - np.logaddexp(-right, np.log(EPSILON)))


def aggregate(log_ratios: Sequence[float], *, forget: bool, definition: str = "tofu-code") -> float:
    """One figure in [0, 1] from the log ratios of a set.

    ``"tofu-code"`` and ``"paper"``: the mean of min(R, 1/R) on the set to forget, which is 1 where right and wrong
    answers are equally likely; the mean of max(0, 1 - R) on the others, which is 1 where the wrong ones are not
    believed. ``"openunlearning"``: the mean of 1 / (1 + R), the share of the right answer, on every set (high on the
    set to forget means that it is still known).
    """
    _known(definition)
    logs = np.asarray(log_ratios, dtype=np.float64)
    if definition == "openunlearning":
        return float(np.exp(-np.logaddexp(0, logs)).mean())
    if forget:
        return float(np.exp(-np.abs(logs)).mean())
    # R above 1 counts as 1
    return float(0.0 - np.expm1(np.minimum(logs, 0)).mean())  # never -0.0, whose reciprocal is minus infinity


def probability_among(right: float, wrong: Sequence[float]) -> float:
    """P(right) / (P(right) + sum_j P(wrong_j) + 1e-10) with P = exp(-loss) of each answer, as in both codes; TOFU's
    text has probabilities that are not normalised by length."""
    p = float(np.exp(-right))
    return float(p / (p + np.exp(-np.asarray(wrong, dtype=np.float64)).sum() + EPSILON))


def model_utility(figures: Sequence[float]) -> float:
    """The harmonic mean of the nine figures of TOFU (probability, ROUGE-L recall and truth ratio, on retained authors,
    real authors and world facts), all in [0, 1]; 0 as soon as one of them is."""
    if len(figures) != 9:
        raise ValueError(f"model utility is made of nine figures, got {len(figures)}")
    return float(hmean(np.asarray(figures, dtype=np.float64) + 0.0))  # of a zero with either sign


def forget_quality(log_ratios: Sequence[float], retain_log_ratios: Sequence[float]) -> float:
    """The p-value of the two-sample Kolmogorov-Smirnov test between the truth ratios of the unlearned model and of the
    retain model, on all items to forget (TOFU's first code drew 300 of them).

    1 for the retain model itself. It cannot fall below 2 / C(2n, n) for n items each, which is reached where the two
    sets of ratios do not overlap at all: 1.9e-23 for n = 40, 1.1e-239 for n = 400.
    """
    return float(ks_2samp(log_ratios, retain_log_ratios).pvalue)


def _known(definition: str) -> None:
    if definition not in DEFINITIONS:
        raise ValueError(f"definition must be one of {', '.join(DEFINITIONS)}, got {definition!r}")
