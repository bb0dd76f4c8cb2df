"""A mean over seeds with its interval, and other statistics with theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; none where there is too little to make one from.

    ``half_width`` is Student's, of a mean, before a bound cuts the interval.
    """

    value: float
    low: float | None = None
    high: float | None = None
    half_width: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.3g}" if self.half_width is None else f"{self.value:.3g} ± {self.half_width:.1g}"

    def text(self, form: str, factor: float = 1.0) -> str:
        """``0.95 ± 0.02``, or ``0.99 (0.96 to 1.00)`` where the interval is not as long on both sides."""
        shown = f"{self.value * factor:{form}}"
        if self.low is None or self.high is None:
            return shown
        width = self.high - self.low
        if self.half_width is not None and math.isclose(width, 2 * self.half_width, rel_tol=1e-9, abs_tol=1e-12):
            return f"{shown} ± {self.half_width * factor:{form}}"
        return f"{shown} ({self.low * factor:{form}} to {self.high * factor:{form}})"


def estimate(values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Estimate | None:
    """The mean of the finite values with Student's interval, cut where no mean can lie; None without a finite value."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return None
    mean = float(np.mean(finite))
    if len(finite) == 1:
        return Estimate(mean)
    from scipy.stats import t

    spread = float(t.ppf(0.975, len(finite) - 1)) * float(np.std(finite, ddof=1)) / math.sqrt(len(finite))
    low, high = max(mean - spread, bounds[0]), min(mean + spread, bounds[1])
    return Estimate(mean, min(low, mean), max(high, mean), spread)


def bootstrapped(
    statistic: Callable[..., npt.NDArray[np.float64]], samples: Sequence[Sequence[float]], *, batch: int = 250
) -> Estimate:
    """A statistic of several samples, each drawn from again by itself: the stratified percentile bootstrap.

    ``statistic`` takes the samples and ``axis=-1``, and may be given many draws of each at once. A sample of one value
    stays as it is, and where all do there is no interval. Agarwal et al., NeurIPS 2021, section 4.1.
    """
    arrays = [np.asarray(sample, dtype=np.float64) for sample in samples]
    value = float(statistic(*arrays, axis=-1))
    several = [array for array in arrays if len(array) > 1]
    if not several:
        return Estimate(value)
    from scipy.stats import bootstrap

    def statistic_of_several(*drawn: npt.NDArray[np.float64], axis: int) -> npt.NDArray[np.float64]:
        left, draws = iter(drawn), drawn[0].shape[:-1]
        whole = [next(left) if len(array) > 1 else np.broadcast_to(array, (*draws, 1)) for array in arrays]
        return statistic(*whole, axis=axis)

    made = bootstrap(
        several,
        statistic_of_several,
        n_resamples=RESAMPLES,
        batch=batch,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(0),  # the same page from the same results
    ).confidence_interval
    return Estimate(value, min(float(made.low), value), max(float(made.high), value))
