"""The geometric mean of the losses."""

from __future__ import annotations

import numpy as np
import torch

from mtopt.combiners._base import LossCombiner
from mtopt.combiners._losses import loss_values, require_above
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like


@register_combiner("gls")
class GLS(LossCombiner):
    """GLS, geometric loss strategy: the gradient of ``m = (prod_k l_k)^(1/K)``, the weights ``m / (K l_k)``.

    Multiplying a loss by c > 0 multiplies m by c^(1/K): the direction stays, its length does not. Equal losses give
    the mean of the gradients.

    Chennupati et al., "MultiNet++: multi-stream feature aggregation and geometric loss strategy for multi-task
    learning", CVPR workshops 2019. Computed through the mean of the logarithms, so that it neither underflows nor
    overflows; LibMTL multiplies the losses out, which does, and reports other weights than those it trains with.

    Every loss must be positive. That of an objective to maximise is negative and has no geometric mean: shift it, or
    use another rule. A loss that is absent from a batch drops out of the mean, K being the number present.
    """

    scale_invariant = True
    positive_losses = True

    def weights(self, losses: torch.Tensor) -> torch.Tensor:
        """``m / (K l_k)``: (K,) for losses (K,)."""
        values = loss_values(losses)
        objectives, _ = self.objectives_of_rows(len(values))
        require_above(self, values, objectives, why="it takes their geometric mean")
        logs = np.log(values)
        return make_tensor_like(np.exp(logs.mean() - logs) / len(values), losses)
