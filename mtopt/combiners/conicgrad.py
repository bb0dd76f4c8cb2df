"""The best direction in a cone around the mean gradient."""

from __future__ import annotations

import torch

from mtopt.combiners._arguments import check_interval
from mtopt.combiners._base import GramianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.linalg import make_tensor_like
from mtopt.solvers import best_in_cone


@register_combiner("conicgrad")
class ConicGrad(GramianCombiner):
    """ConicGrad: the direction that lowers the worst loss most, within an angle of the mean gradient.

    ``d = argmax_d min_k g_k . d`` subject to ``cos(d, g_0) >= c`` and ``||d|| = ||g_0||``, ``g_0 = sum_k g_k / K``. It
    is MGDA's direction where that is in the cone, and on the cone's boundary elsewhere. CAGrad bounds direction and
    length together, by a ball; here d is as long as the mean, whatever the angle.

    Hassanpour et al., "Fantastic multi-task gradient updates and how to find them in a cone", 2025 (arXiv 2502.00217),
    of which the program is known here and not the text: it is solved exactly, with its error in ``certificate``, where
    the paper takes a closed form for given weights, and steps of these. The default c is this package's.

    Args:
        c: least cosine of the angle, in (0, 1); near 1 it is the mean.

    With equal gradients the step is that of ``linear``. A zero gradient counts in the mean, and not in the minimum. At
    a Pareto-stationary point, where no direction lowers every loss, d is the mean.
    """

    search_space = {"c": ("uniform", 0.1, 0.9)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, c: float = 0.5) -> None:
        check_interval("(0, 1)", c=c)
        self.c = c

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The weights (K,) of d for a Gramian (K, K)."""
        weights, self.certificate = best_in_cone(gramian, self.c, self._precision(gramian))
        return make_tensor_like(weights, gramian)
