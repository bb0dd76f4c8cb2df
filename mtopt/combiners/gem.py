"""Gradient episodic memory."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._arguments import check_finite, check_whole
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like, read_gramian
from mtopt.solvers import project_dual_cone


@register_combiner("gem")
class GEM(GramianCombiner):
    """GEM: the current task's gradient, changed as little as keeps the losses on the memories from rising.

    ``d = argmin_d || d - g ||²`` subject to ``g_k . d >= 0`` for every memory k, where g is the current task's gradient
    and g_k those of the losses on examples kept of earlier tasks. The memories are constraints: without a conflict d is
    g alone.

    Lopez-Paz and Ranzato, "Gradient episodic memory for continual learning", NeurIPS 2017. The dual,
    ``d = g + sum_k v_k g_k`` with ``v >= 0``, is solved exactly (:func:`mtopt.solvers.project_dual_cone`);
    the authors' code adds a ridge of 1e-3 to the Gramian, in the unit of a squared gradient.

    Args:
        current: position of the current task's loss; all others are memories.
        margin: ``v_k >= margin`` as soon as one memory conflicts, which favours improving them: 0 is the projection
            itself, the authors' experiments use 0.5.

    At margin 0 the current loss does not rise, either. Without it in the step d is zero. Zero gradients change nothing.
    """

    symmetric = False
    search_space = {"margin": ("uniform", 0.0, 1.0)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, current: int = 0, margin: float = 0.0) -> None:
        check_whole(0, current=current)
        check_finite(margin=margin)
        self.current, self.margin = current, margin
        # the memories' lengths count, and the current loss may rise, where v has a floor
        self.scale_invariant = self.non_conflicting = margin == 0

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """Weights (K,) for a Gramian (K, K): 1 for the current task, v for the memories."""
        matrix = read_gramian(gramian)
        objectives, total = self.objectives_of_rows(len(matrix))
        if self.current >= total:
            raise ValueError(f"current is {self.current}, but there are only {total} objectives")
        self.certificate = None
        if self.current not in objectives:
            return make_tensor_like(np.zeros(len(matrix)), gramian)
        row = objectives.index(self.current)
        memories = [k for k in range(len(matrix)) if k != row]
        start = np.eye(len(matrix))[row]
        if (matrix[row] < 0.0).any():
            start[memories] = self.margin
        weights, self.certificate = project_dual_cone(matrix, start, memories, self._precision(gramian))
        return make_tensor_like(weights, gramian)
