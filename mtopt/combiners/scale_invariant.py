"""The sum of the logarithms."""

from __future__ import annotations

import torch

from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import loss_values, require_above
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like


@register_combiner("si")
class SI(LossCombiner):
    """SI, scale-invariant scalarization: the gradient of ``sum_k log l_k``, that is, the weights ``1 / l_k``.

    Multiplying a loss by c > 0 adds a constant to the sum, so the direction does not change at all. The baseline of
    Navon et al., "Multi-task learning as a bargaining game", ICML 2022. :class:`GLS` has the same direction, with the
    length of a weighted mean of the gradients; here the length grows as the losses shrink: equal losses l give the
    sum of the gradients over l. Popular code adds 1e-20 or nothing to the losses; nothing is added here.

    Every loss must be positive. That of an objective to maximise is negative and has no logarithm: shift it, or use
    another rule. A loss that is absent from a batch drops out of the sum.
    """

    scale_invariant = True
    positive_losses = True

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``1 / l_k``: (K,) for losses (K,)."""
        values = loss_values(losses)
        objectives, _ = self.objectives_of_rows(len(values))
        require_above(self, values, objectives, why="it takes their logarithms")
        return make_tensor_like(1.0 / values, losses)
