"""Smooth Tchebycheff scalarization."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._arguments import check_positive_or_none, check_whole
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import (
    Reference,
    check_reference,
    loss_values,
    losses_above,
    reference_of,
    require_above,
    softmax,
)
from mtopt.combiners._preference import Preference, check_preference
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like


@register_combiner("stch")
class STCH(LossCombiner):
    """STCH, smooth Tchebycheff: the gradient of ``mu log sum_k exp(p_k (l_k - z_k) / mu)``.

    The weights are ``p_k softmax(p (l - z) / mu)_k``: a smooth ``max_k p_k (l_k - z_k)``, above it by at most
    ``mu log K``. As mu goes to zero it is :class:`~mtopt.combiners.tchebycheff.Tchebycheff`, and as mu goes to
    infinity the direction is that of ``linear``. Every Pareto point is the solution for some preference, on concave
    fronts, too. The weights sum to at most ``max p``: equal losses and preferences give the mean of the gradients
    divided by K. mu has the unit of the weighted losses: scale losses by c, and mu must follow.

    ``log=True`` is the authors' multi-task variant, free of units: the gradient of
    ``K mu log sum_k exp(y_k / mu)`` with ``y_k = log(l_k / n_k)``, the weights ``K softmax(y / mu)_k / l_k``. The nadir
    n is the mean loss over one epoch that follows ``warmup`` epochs; until it is known, the direction is the gradient
    of ``sum_k log l_k`` (the rule ``si``). The published code adds 1e-20 to the losses; nothing is added here.

    Lin et al., "Smooth Tchebycheff scalarization for multi-objective optimization", ICML 2024.

    Args:
        mu: smoothing, > 0. Default: 0.01, or 1 with ``log=True``, as in the authors' codes for Pareto sets (on losses
            scaled to [0, 1]) and for multi-task learning; libmoon takes 0.1.
        preference: (K,) weights p, non-negative, summing to one. Default: 1/K each. Not with ``log=True``.
        reference: (K,) ideal point z. Default: zeros. Not with ``log=True``.
        log: the multi-task variant.
        window: steps in one epoch of the warm-up; ``window=len(loader)`` counts as the authors do. Default 25.
        warmup: epochs before the one that n is measured in, >= 0. Default 4, the authors'.
        nadir: (K,) positive values n, known beforehand: there is no warm-up then. Only with ``log=True``.

    Without ``log`` losses may have any sign, so that an objective may be maximised; give a reference below all that
    the losses may reach. With ``log`` every loss must be positive, and a loss to maximise is refused. A loss that is
    absent from a batch drops out of the sum. An objective that n was not measured for takes its next loss.
    """

    stateful = True
    search_space = {"mu": ("log", 1e-3, 1.0)}  # noqa: RUF012  (a class-level constant)
    state = ("_step", "_sums", "_counts")
    _as_long = ("_sums", "_counts")

    def __init__(
        self,
        *,
        mu: float | None = None,
        preference: Preference = None,
        reference: Reference = None,
        log: bool = False,
        window: int = 25,
        warmup: int = 4,
        nadir: Reference = None,
    ) -> None:
        check_positive_or_none(mu=mu)
        check_preference(preference)
        check_reference(reference)
        check_reference(nadir, "nadir")
        if log and (preference is not None or reference is not None):
            raise ValueError("log=True has no preference and no reference: leave them out, or use log=False")
        if nadir is not None and not (log and bool((torch.as_tensor(nadir) > 0).all())):
            raise ValueError(f"nadir must be positive, and goes with log=True only; found {nadir!r} with log={log}")
        check_whole(1, window=window)
        check_whole(0, warmup=warmup)
        self.mu, self.preference, self.reference, self.log, self.window = mu, preference, reference, log, window
        self.warmup, self.nadir = warmup, nadir
        self.positive_losses = log
        self._step = 0
        self._sums: list[float] = []
        self._counts: list[int] = []

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """The partial derivatives (K,) of the scalarization at losses (K,)."""
        if self.log:
            values = loss_values(losses)
            return make_tensor_like(self._log_weights(values, *self.objectives_of_rows(len(values))), losses)
        mu = 0.01 if self.mu is None else self.mu
        preference, above = losses_above(self, losses, self.preference, self.reference)
        return make_tensor_like(preference * softmax(preference * above / mu), losses)

    def _log_weights(self, values: Array, objectives: tuple[int, ...], total: int) -> Array:
        require_above(self, values, objectives, why="log=True takes their logarithms")
        nadir = self._nadir_at(values, objectives, total)
        if nadir is None:
            return np.asarray(1.0 / values)
        mu = 1.0 if self.mu is None else self.mu
        return np.asarray(len(values) * softmax(np.log(values / nadir) / mu) / values)

    def _nadir_at(self, values: Array, objectives: tuple[int, ...], total: int) -> Array | None:
        """n of the losses present, or None while it is being measured."""
        if self.nadir is not None:
            return reference_of(self.nadir, objectives, total, "nadir")
        sums, counts = list(self._sums or [0.0] * total), list(self._counts or [0] * total)
        if len(sums) != total:
            raise ValueError(
                f"this STCH has measured {len(sums)} objectives and is given {total}; create one rule for each problem"
            )
        epoch = self._step // self.window
        for k, value in zip(objectives, values.tolist(), strict=True):
            if epoch == self.warmup or (epoch > self.warmup and counts[k] == 0):
                sums[k] += value
                counts[k] += 1
        self._step, self._sums, self._counts = self._step + 1, sums, counts
        return np.array([sums[k] / counts[k] for k in objectives]) if epoch > self.warmup else None
