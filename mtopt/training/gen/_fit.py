"""The parabola through losses along a step, and the gates that let it through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtopt.autograd import Verdict

ROUNDING = 16.0
"""Differences of losses below this many units of rounding are taken for zero where their sign decides."""


@dataclass(frozen=True, slots=True)
class Parabola:
    """``phi(s) - phi(0) = -slope s + curvature s^2 / 2``, fitted by least squares.

    Attributes:
        fit: R^2 = 1 - sum of squared residuals / sum of squares about the mean.
        verdict: ``"accepted"``, or the first gate that refused.
        rises, falls: a whole step raises the loss (or makes it NaN or infinite), or lowers it; neither, when the change
            is no more than rounding.
    """

    slope: float
    curvature: float
    fit: float
    verdict: Verdict
    rises: bool
    falls: bool

    @property
    def measured(self) -> bool:
        """There were losses to fit."""
        return self.verdict not in ("no update", "no loss")

    @property
    def optimum(self) -> float | None:
        """The s of the lowest point; None unless accepted."""
        return self.slope / self.curvature if self.verdict == "accepted" else None


def fit_parabola(points: Sequence[float], losses: Sequence[float], *, least_fit: float, unit: float) -> Parabola:
    """Fit ``losses`` at ``points``, 0 among them.

    Args:
        least_fit: R^2 must be above.
        unit: the relative rounding error of a loss.
    """
    s, values = np.asarray(points), np.asarray(losses, dtype=np.float64)
    if not np.isfinite(values).all():
        return Parabola(math.nan, math.nan, math.nan, "not finite", rises=True, falls=False)
    at_zero = values[points.index(0.0)]
    rise = values - at_zero
    noise = ROUNDING * unit * float(np.abs(values).max())
    ahead = min((point for point in points if point > 0), key=lambda point: abs(point - 1.0))
    change = float(rise[points.index(ahead)])
    (slope, curvature), *_ = np.linalg.lstsq(np.stack([-s, 0.5 * s**2], axis=1), rise, rcond=None)
    residual = rise - (0.5 * curvature * s**2 - slope * s)
    spread = float(((rise - rise.mean()) ** 2).sum())
    fit = 1.0 - float((residual**2).sum()) / spread if spread > 0 else 0.0
    verdict: Verdict = "accepted"
    if slope <= 0:
        verdict = "no descent"
    elif curvature <= noise:  # at a rate far too small the curvature is rounding, and its sign is chance
        verdict = "no curvature"
    elif not fit > least_fit:
        verdict = "poor fit"
    return Parabola(float(slope), float(curvature), fit, verdict, rises=change > noise, falls=change < -noise)
