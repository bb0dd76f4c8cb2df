"""Multi-objective gradient correction with variance reduction."""

from __future__ import annotations

import torch

from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._exchange import Outcome
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._tracked import grown_rows, grown_weights, joined
from mtopt.linalg import Gradients, gramian_of
from mtopt.solvers import project_simplex


@register_combiner("moco_plus")
class MoCoPlus(JacobianCombiner):
    """MoCo+: MoCo whose tracked gradients follow the parameters, by looking at each batch at two points.

    With ``h_t(x)`` the gradients (K, D) of batch t at x, ``Y_1 = h_1(x_1)`` and ``lambda_0 = 1/K``, step t does
    ``Y <- h_t(x_t) + (1 - beta_t) (Y - h_t(x_{t-1}))``, ``lambda <- Proj(lambda - gamma (Y Y') lambda)``,
    ``d = Y' lambda``, with ``beta_t = min(1, c alpha_{t-1}²)``, ``alpha_t = k / (w + sigma² t)^(1/3)``; Proj is the
    projection on the simplex. An exponential average (:class:`MoCo`) lags behind gradients that change as the
    parameters move; here the change itself is added, from one batch, so that most of its noise cancels and beta can be
    far smaller. ``beta = 1`` is no averaging at all.

    Fernando et al., "Variance reduction can improve trade-off in multi-objective learning", ICASSP 2024; the estimator
    and its schedule are STORM (Cutkosky and Orabona, "Momentum-based variance reduction in non-convex SGD", NeurIPS
    2019), the names and defaults of the constants and the order of the updates those of the authors' code. That code
    stores the gradients at the old point and never subtracts them, and multiplies Y in every step by the largest norm
    of a coordinate so far, where the theory projects it on a ball; here the gradients are subtracted, and Y is neither
    scaled nor projected. Its runs have ``k=1e-4, w=1e-3, c=10, gamma=100``, with which beta is 2e-6 and less.

    The rule has the trait ``revisits``: a step takes 2K backwards, and :func:`mtopt.backward` must be able to run the
    losses again, so they are given as a callable::

        record = mtopt.backward(lambda: losses(batch), model.parameters(), rule)

    The second visit has the dropout masks of the first and moves no running statistics. ``rule(jacobian)`` takes a
    (2, K, D) tensor, the gradients here and those of the same batch at the parameters of the step before; a (K, D) one
    says that the parameters have not moved: both are the same, and Y is averaged exponentially.

    Args:
        c, k, w, sigma: constants of beta, > 0 (w and sigma >= 0, and not both 0). The paper's alpha is also the
            learning rate, which is the optimizer's here.
        gamma: step of the weights, > 0, in the unit of an inverse squared gradient.

    A loss that is absent from a batch keeps its row of Y, which still takes part in the step; when it comes back its
    row starts anew from the batch's gradient. Without a conflict and with equal gradients the step is that gradient.
    The state is K vectors of D entries in float32 (float64 for a float64 model), and the parameters of the last step.
    """

    shardable = True
    features = False  # the representations of two points have nothing in common
    revisits = True
    stateful = True
    homogeneous = False  # gamma has the unit of an inverse squared gradient
    weighted = True
    search_space = {"c": ("log", 0.1, 100.0), "gamma": ("log", 1e-3, 10.0)}  # noqa: RUF012  (a class-level constant)
    state = ("_members", "_current", "_tracked", "_lambda", "_step", "visited")
    _as_long = ("_members", "_tracked", "_lambda")
    by_coordinate = ("_tracked",)
    _late_state = {"_tracked": 2, "visited": "list"}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self, *, c: float = 0.1, k: float = 0.1, w: float = 0.1, sigma: float = 0.1, gamma: float = 0.1
    ) -> None:
        if not c > 0 or not k > 0 or not gamma > 0:
            raise ValueError(f"c, k and gamma must be positive, found c={c}, k={k}, gamma={gamma}")
        if not w >= 0 or not sigma >= 0 or w == sigma == 0:
            raise ValueError(f"w and sigma must be non-negative and not both zero, found w={w}, sigma={sigma}")
        self.c, self.k, self.w, self.sigma, self.gamma = c, k, w, sigma, gamma
        self._members: list[int] = []  # the objective of each tracked row, in order of appearance
        self._current: list[int] = []  # those whose rows are of the last step
        self._tracked: torch.Tensor | None = None
        self._lambda = torch.zeros(0, dtype=torch.float64)
        self._step = 0

    def __call__(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """The direction (D,) of (2, K, D) gradients, here and at the step before; or of (K, D), where both are one."""
        if not isinstance(jacobian, torch.Tensor) or jacobian.ndim != 3:
            return super().__call__(jacobian, losses)
        if len(jacobian) != 2:
            raise ValueError(f"jacobian must have shape (2, K, D) or (K, D), found {tuple(jacobian.shape)}")
        here, before = (Gradients.of(rows) for rows in jacobian.detach())
        direction = self.combine_revisited(here, before, None).direction
        assert direction is not None
        return direction

    def combine_revisited(self, gradients: Gradients, before: Gradients | None, losses: torch.Tensor | None) -> Outcome:
        """The outcome for the gradients of one batch, here and at the parameters of the step before."""
        here = gradients.jacobian()
        # autocast off: the rule's products are not the model's
        with self.tell(self._context_for(gradients)), torch.autocast(here.device.type, enabled=False):
            direction = self._advanced(here, here if before is None else before.jacobian())
        weights = self.last_weights
        return Outcome(None if weights is None else self._weights(weights, len(here)), direction)

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``Y' lambda`` (D,) after one update of both with rows (K, D) that are the same at both points."""
        return self._advanced(jacobian, jacobian)

    def _advanced(self, here: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        objectives, _ = self.objectives_of_rows(len(here))
        members, positions = joined(self._members, objectives)
        tracked = grown_rows(self._tracked, len(members), here, type(self).__name__)
        self._members, self._tracked = members, tracked
        self._lambda = grown_weights(self._lambda, len(members))
        past = 1.0 - self._beta()
        for position, objective, row, old in zip(positions, objectives, here, before, strict=True):
            if objective in self._current:
                tracked[position].sub_(old).mul_(past).add_(row)
            else:
                tracked[position].copy_(row)
        self._current = list(objectives)
        self._step += 1
        slope = gramian_of(tracked) @ self._lambda
        self._lambda = torch.from_numpy(project_simplex(self._lambda - self.gamma * slope))
        self.last_weights = self._lambda[positions]
        return (tracked.T @ self._lambda.to(tracked)).to(here.dtype)

    def _beta(self) -> float:
        """That of the step to come; the first one has nothing to average with."""
        alpha: float = self.k / (self.w + self.sigma**2 * max(self._step, 1)) ** (1 / 3)
        return min(1.0, self.c * alpha**2)
