"""Dynamic weight average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mtopt._errors import CheckpointError
from mtopt.combiners._arguments import check_positive, check_whole
from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import loss_values, require_above, softmax
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import Array, make_tensor_like


@register_combiner("dwa")
class DWA(LossCombiner):
    """DWA, dynamic weight average: a loss that fell less lately weighs more.

    ``w = K softmax(r / temperature)`` with ``r_k = L_k(e-1) / L_k(e-2)``, the ratio of the mean losses of the last
    two epochs; in the first two epochs every weight is 1. The weights sum to K: with equal rates the direction is the
    sum of the gradients.

    Liu, Johns and Davison, "End-to-end multi-task learning with attention", CVPR 2019. The paper counts epochs; here
    an epoch is ``window`` steps, so ``window=len(loader)`` gives the paper's. The Nash-MTL repository slides two
    windows of 25 steps along instead (``sliding=True``); it counts the present step in, starts from windows filled with
    ones, and divides by K.

    Args:
        window: number of steps over which losses are averaged, >= 1. Default 25.
        temperature: > 0; large ones make the weights equal. Default 2, the paper's.
        sliding: weigh anew in each step, by the last 2 ``window`` steps, instead of once in every ``window`` steps.

    Losses must not be negative, since their ratio would say the opposite: the loss of an objective to maximise is
    refused. A ratio of two zeros is 1; a loss that rises from an exact zero takes all the weight. A loss that is absent
    from a batch is left out of its mean; one that is absent from a whole window has ratio 1. The state holds the last
    2 ``window`` losses of every objective.
    """

    stateful = True
    positive_losses = True
    search_space = {"temperature": ("log", 0.5, 10.0)}  # noqa: RUF012  (a class-level constant)
    state = ("_history", "_current", "_step")
    _late_state = {"_history": 2, "_current": 1}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, window: int = 25, temperature: float = 2.0, sliding: bool = False) -> None:
        check_whole(1, window=window)
        check_positive(temperature=temperature)
        self.window, self.temperature, self.sliding = window, temperature, sliding
        self._history: torch.Tensor | None = None  # (2 window, K), a ring: step t is in row t mod 2 window
        self._current: torch.Tensor | None = None  # the weights of all objectives
        self._step = 0

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the losses of another DWA's steps.

        Raises:
            CheckpointError: as for any rule, or its window was another.
        """
        super().load_state_dict(state_dict)
        if self._history is not None and len(self._history) != 2 * self.window:
            raise CheckpointError(
                f"DWA has the losses of {len(self._history)} steps, and window={self.window} takes twice as many; "
                "give the window that was saved"
            )

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``K softmax(r / temperature)``: (K,) for losses (K,), which enter into later weights."""
        values = loss_values(losses)
        objectives, total = self.objectives_of_rows(len(values))
        require_above(self, values, objectives, why="it takes their ratios", inclusive=True)
        if self._history is None or self._current is None:
            self._history = torch.full((2 * self.window, total), torch.nan, dtype=torch.float64)
            self._current = torch.ones(total, dtype=torch.float64)
        if self._history.shape[1] != total:
            raise ValueError(
                f"this DWA has averaged {self._history.shape[1]} objectives and is given {total}; "
                "create one rule for each problem"
            )
        if self._step >= 2 * self.window and (self.sliding or self._step % self.window == 0):
            self._current = torch.from_numpy(total * softmax(self._ratios() / self.temperature))
        row = self._history[self._step % (2 * self.window)]
        row.fill_(torch.nan)
        row[list(objectives)] = torch.from_numpy(values)
        self._step += 1
        return make_tensor_like(self._current.numpy()[list(objectives)], losses)

    def _ratios(self) -> Array:
        """Mean losses of the last window over those of the window before."""
        assert self._history is not None
        order = (self._step + np.arange(2 * self.window)) % (2 * self.window)  # oldest first
        halves = self._history.numpy()[order].reshape(2, self.window, -1)
        counts = (~np.isnan(halves)).sum(1)
        older, newer = np.nansum(halves, 1) / np.maximum(counts, 1)
        known = (counts > 0).all(0)
        risen = known & (older == 0) & (newer > 0)
        if risen.any():  # the limit of the softmax
            return np.where(risen, 0.0, -np.inf)
        usable = known & (older > 0)
        return np.where(usable, newer / np.where(usable, older, 1.0), 1.0)
