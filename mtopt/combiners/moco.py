"""Multi-objective gradient correction."""

from __future__ import annotations

from typing import Literal

import torch

from mtopt.combiners._arguments import check_choice, check_interval
from mtopt.combiners._base import JacobianCombiner
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._tracked import grown_rows, grown_weights, joined
from mtopt.linalg import gramian_of
from mtopt.solvers import project_simplex


@register_combiner("moco")
class MoCo(JacobianCombiner):
    """MoCo: MGDA for noisy gradients, by tracking them.

    With y_0 = 0 and lambda_0 = 1/K, step t = 1, 2, ... does
    ``Y <- Y - beta_t (Y - J)``, ``lambda <- Proj(lambda - gamma_t (Y Y' + rho_t I) lambda)``, ``d = Y' lambda``,
    with ``beta_t = beta / t^beta_decay`` and likewise gamma and rho; Proj is the projection on the simplex. MGDA's
    weights computed from noisy gradients are biased; the tracked ones are not, in the limit, at any batch size.

    Fernando et al., "Mitigating gradient bias in multi-objective learning: a provably convergent approach", ICLR 2023.
    (The theory also projects y on a ball; no published code does, nor does this.) As y starts from zero, the first
    steps are shorter than the gradients by the factor ``beta_1``. ``gamma (Y Y') lambda`` has the scale of squared
    gradients: gamma must fit the losses, unless ``rescale="loss"``.

    Args:
        beta: tracking rate in (0, 1].
        gamma: step of the weights, > 0.
        rho: regulariser of the weights, >= 0; it pulls them to equality.
        beta_decay, gamma_decay, rho_decay: exponents of the decay with the step, >= 0. (The authors' CAGrad-based code
            counts epochs instead of steps.)
        projection: ``"simplex"`` (the paper) or ``"softmax"`` of the same step (LibMTL, and the authors' Cityscapes
            code).
        rescale: None (the paper), or ``"loss"``: every row is first rescaled to the size of its loss value (LibMTL).

    A loss that is absent from a batch keeps its tracked gradient, which still takes part in the step. The state is K
    vectors of D entries in float32 (float64 for a float64 model).
    """

    shardable = True
    stateful = True
    homogeneous = False  # gamma has the unit of an inverse squared gradient
    weighted = True
    search_space = {"beta": ("log", 0.05, 1.0), "gamma": ("log", 1e-3, 10.0)}  # noqa: RUF012  (a class-level constant)
    state = ("_members", "_tracked", "_lambda", "_step")
    _as_long = ("_members", "_tracked", "_lambda")
    by_coordinate = ("_tracked",)
    _late_state = {"_tracked": 2}  # noqa: RUF012  (a class-level constant)

    def __init__(
        self,
        *,
        beta: float = 0.5,
        gamma: float = 0.1,
        rho: float = 0.0,
        beta_decay: float = 0.5,
        gamma_decay: float = 0.5,
        rho_decay: float = 0.0,
        projection: Literal["simplex", "softmax"] = "simplex",
        rescale: Literal["loss"] | None = None,
    ) -> None:
        check_interval("(0, 1]", beta=beta)
        if not gamma > 0 or not rho >= 0:
            raise ValueError(f"gamma must be positive and rho non-negative, found gamma={gamma}, rho={rho}")
        if min(beta_decay, gamma_decay, rho_decay) < 0:
            raise ValueError(
                "beta_decay, gamma_decay and rho_decay must be non-negative, "
                f"found {beta_decay}, {gamma_decay}, {rho_decay}"
            )
        check_choice("simplex", "softmax", projection=projection)
        check_choice(None, "loss", rescale=rescale)
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.beta_decay, self.gamma_decay, self.rho_decay = beta_decay, gamma_decay, rho_decay
        self.projection, self.rescale = projection, rescale
        self._members: list[int] = []  # the objective of each tracked row, in order of appearance
        self._tracked: torch.Tensor | None = None
        self._lambda = torch.zeros(0, dtype=torch.float64)
        self._step = 0

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """``Y' lambda`` (D,) after one update of both with the rows of ``jacobian`` (K, D)."""
        objectives, _ = self.objectives_of_rows(len(jacobian))
        dtype = jacobian.dtype
        if self.rescale == "loss":
            jacobian = self._rescaled(jacobian, self._losses(losses, len(jacobian)))
        members, positions = joined(self._members, objectives)
        tracked = grown_rows(self._tracked, len(members), jacobian, type(self).__name__)
        self._members, self._tracked = members, tracked
        self._lambda = grown_weights(self._lambda, len(members))
        self._step += 1
        beta, gamma, rho = (
            rate / self._step**decay
            for rate, decay in (
                (self.beta, self.beta_decay),
                (self.gamma, self.gamma_decay),
                (self.rho, self.rho_decay),
            )
        )
        for position, row in zip(positions, jacobian, strict=True):
            tracked[position].lerp_(row.to(tracked.dtype), beta)
        slope = gramian_of(tracked) @ self._lambda + rho * self._lambda
        moved = self._lambda - gamma * slope
        self._lambda = (
            torch.softmax(moved, 0) if self.projection == "softmax" else torch.from_numpy(project_simplex(moved))
        )
        self.last_weights = self._lambda[positions]
        return (tracked.T @ self._lambda.to(tracked)).to(dtype)

    @staticmethod
    def _rescaled(jacobian: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        norms = gramian_of(jacobian).diagonal().sqrt()
        factors = torch.where(norms > 0, losses.abs() / norms, 0.0)  # a maximised objective's loss is negative
        rows = jacobian.to(torch.promote_types(jacobian.dtype, torch.float32))
        return rows * factors.to(rows)[:, None]
