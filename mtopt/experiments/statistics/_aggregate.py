"""Scores of several tasks in one unit, and what is made of them over tasks and seeds (Agarwal et al., NeurIPS 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mtopt.experiments.statistics._estimate import Estimate, bootstrapped

Array = npt.NDArray[np.float64]

Runs = Sequence[Sequence[float]]
"""For each task the scores of a rule's seeds."""


def gain(scores: npt.ArrayLike, base: npt.ArrayLike) -> Array:
    """(score - base) / max(score, base), of scores from 0 on: from -1 for a score of 0 to 1 for a base of 0.

    Turning the two round changes the sign alone, as the tests of differences need; a score over the base does not.
    """
    scores, base = np.asarray(scores, dtype=np.float64), np.asarray(base, dtype=np.float64)
    scale = np.maximum(np.abs(scores), np.abs(base))
    found: Array = np.divide(scores - base, scale, out=np.zeros_like(scale), where=scale > 0)
    return found


def interquartile_gain(own: Runs, base: Runs) -> Estimate:
    """The mean of the middle half of all runs' gains on the base's means, with the stratified bootstrap's interval."""
    return bootstrapped(lambda *drawn, axis: _interquartile_mean(_gains(drawn)), [*own, *base])


def _gains(drawn: Sequence[Array]) -> Array:
    """(..., runs of all tasks): the first half of what is drawn against the means of the second."""
    half = len(drawn) // 2
    pairs = zip(drawn[:half], drawn[half:], strict=True)
    return np.concatenate([gain(own, base.mean(-1, keepdims=True)) for own, base in pairs], axis=-1)


def _interquartile_mean(values: Array) -> Any:
    from scipy.stats import trim_mean

    return trim_mean(values, 0.25, axis=-1)


def probability_of_improvement(own: Runs, base: Runs) -> Estimate:
    """That a run of the rule scores above one of the base on the same task, ties a half; the mean over tasks."""
    return bootstrapped(lambda *drawn, axis: _probability(drawn), [*own, *base])


def _probability(drawn: Sequence[Array]) -> Any:
    half = len(drawn) // 2
    ahead = [
        (0.5 * (np.sign(own[..., :, None] - base[..., None, :]) + 1.0)).mean((-2, -1))
        for own, base in zip(drawn[:half], drawn[half:], strict=True)
    ]
    return np.mean(ahead, axis=0)


def profile(own: Runs, base: Runs, thresholds: npt.ArrayLike) -> Array:
    """The share of runs whose gain on the base's mean is above each threshold; the mean over tasks."""
    above = [
        np.greater.outer(gain(runs, np.mean(others)), np.asarray(thresholds)).mean(0)
        for runs, others in zip(own, base, strict=True)
    ]
    found: Array = np.mean(above, axis=0)
    return found
