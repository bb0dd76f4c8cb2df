"""Machine unlearning via Nash bargaining."""

from __future__ import annotations

import torch

from mtopt.combiners._registry import register_combiner
from mtopt.combiners.nash_mtl import NashMTL


@register_combiner("munba")
class MUNBa(NashMTL):
    """MUNBa: Nash bargaining between the losses to retain and to forget, ``G w = 1 / w``.

    For two it is ``w_k = 1 / (||g_k|| sqrt(1 + cos))``, with the cosine of the angle between the descent directions:
    NGDiff's direction divided by ``sqrt(1 + cos)``. Both gradients are of losses to be minimised; the paper's forget
    loss is the cross-entropy with random labels.

    Wu and Harandi, "MUNBa: machine unlearning via Nash bargaining", ICCV 2025 (arXiv 2411.15537). The authors' code
    falls back on the weights 1 and 0.1 where its closed form is not positive, and clips the gradient to norm 1: see
    ``max_norm``. More than two losses bargain as in :class:`NashMTL`.

    Args:
        max_norm: the direction is shortened to this length when it is longer. Default: never, as in the paper.

    A loss left alone in its batch (more retain than forget data, say) has nobody to bargain with and takes its own
    gradient, weight 1, as in the authors' code. Opposite gradients leave no bargain, and the direction is zero.
    """

    matrix_free = False  # a loss left alone has no length in common with the bargain

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The bargaining weights (K,) of a Gramian (K, K)."""
        if len(gramian) == 1:
            self.certificate = None
            return torch.ones_like(gramian.diagonal())
        return super().weights(gramian, losses)
