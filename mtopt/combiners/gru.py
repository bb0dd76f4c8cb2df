"""Gradient rectified unlearning."""

from __future__ import annotations

import torch

from mtopt.combiners._arguments import check_interval, check_positive_or_none
from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._roles import RetainsAndForgets, check_roles
from mtopt.combiners._tracked import grown_rows
from mtopt.linalg import Gradients, gramian_of


@register_combiner("gru")
class GRU(RetainsAndForgets, JacobianCombiner):
    """GRU: the forget gradient, without the part that would make the retain loss rise.

    ``d = g_F - min(g_F . r, 0) / ||r||² r``, where ``r <- gamma g_R + (1 - gamma) r`` averages the retain gradient over
    the steps, from zero. Then ``d . r >= 0``. Here ``g_F`` is the gradient of a forget loss to be minimised, as in the
    paper (NPO, or the negative log-likelihood with its sign flipped by ``Objective("forget", sense="max")``).

    Wang et al., "GRU: mitigating the trade-off between unlearning and retention for LLMs", ICML 2025 (arXiv
    2503.09117); gamma is that of the authors' code. The retain loss is a constraint and not an objective: nothing pulls
    it down, and without a conflict ``d`` is the forget gradient alone.

    Args:
        gamma: share of this step's retain gradient in the average, in (0, 1]; 1 takes it alone.
        max_norm: ``d`` is shortened to this length when it is longer. Default: never.
        retain, forget: the positions of the two objectives.

    Without a forget loss in the batch, ``d`` is zero; without a retain loss, the average so far is used. More or fewer
    than two objectives are refused. The state is a vector of D entries in float32 (float64 for a float64 model), which
    belongs to parameters: the rule does not take gradients of a representation.
    """

    shardable = True
    features = False
    stateful = True
    scale_invariant = True
    weighted = True
    search_space = {"gamma": ("uniform", 0.1, 1.0)}  # noqa: RUF012  (a class-level constant)
    state = ("_average",)
    by_coordinate = ("_average",)
    _late_state = {"_average": 2}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, gamma: float = 0.8, max_norm: float | None = None, retain: int = 0, forget: int = 1) -> None:
        check_interval("(0, 1]", gamma=gamma)
        check_positive_or_none(max_norm=max_norm)
        check_roles(retain, forget)
        self.gamma, self.max_norm, self.retain, self.forget = gamma, max_norm, retain, forget
        self._average: torch.Tensor | None = None  # r, (1, D)

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``g_F`` rectified: (D,) for a Jacobian (2, D), after averaging in its retain row."""
        retain, forget = self.rows_of_roles(len(jacobian))
        average = grown_rows(self._average, 1, jacobian, "GRU")
        self._average = average
        if retain is not None:
            average[0].lerp_(jacobian[retain].to(average.dtype), self.gamma)
        if forget is None:
            self.last_weights = torch.zeros(len(jacobian), dtype=torch.float64)
            return torch.zeros_like(jacobian[0])
        pair = Gradients([[jacobian[forget].to(average.dtype)], [average[0]]])
        conflict = min(float(pair.gramian[0, 1]), 0.0)
        pull = -conflict / float(pair.gramian[1, 1]) if conflict < 0 else 0.0
        direction = pair.combined(torch.tensor([1.0, pull], dtype=torch.float64))[0]
        factor = 1.0
        if self.max_norm is not None:
            norm = float(gramian_of(direction[None]).sqrt())
            factor = self.max_norm / norm if norm > self.max_norm else 1.0
            direction *= factor
        weights = {forget: factor, retain: factor * pull}
        self.last_weights = torch.tensor([weights[row] for row in range(len(jacobian))], dtype=torch.float64)
        return direction.to(jacobian.dtype)
