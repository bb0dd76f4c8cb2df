"""Multi-objective gradient with double sampling."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtopt.combiners._arguments import check_non_negative, check_positive
from mtopt.combiners._draws import DrawsCombiner, project_mass
from mtopt.combiners._registry import register_combiner
from mtopt.combiners._tracked import grown_weights, joined
from mtopt.linalg import Array, make_tensor_like, read_cross_gramian


@register_combiner("modo")
class MoDo(DrawsCombiner):
    """MoDo: one projected step of MGDA's program, whose gradient two independent draws estimate without bias.

    With J1, J2, J3 the Jacobians of three independent mini-batches and lambda = 1/K at the start:
    ``lambda <- Proj(lambda - gamma (J1 J2' lambda + rho lambda))``, ``d = J3' lambda``; Proj is the projection on the
    simplex.

    Chen et al., "Three-way trade-off in multi-objective learning: optimization, generalization and
    conflict-avoidance", NeurIPS 2023, and JMLR 2024. LibMTL and TorchJD project as well (TorchJD with gamma 0.1 by
    default, and its caller takes the draws); the authors' own code can also take two draws and step along
    ``(J1 + J2)' lambda``.

    ``J1 J2' lambda`` has the scale of squared gradients: gamma must fit the losses. The default keeps the weights near
    equality for long; on noise-free gradients with ``rho = 0`` they tend to MGDA's. The weights sum to one: with equal
    gradients the step is theirs.

    With ``plan="matrix_free"`` the update is the same, and no Jacobian is made: ``J2' lambda`` is one weighted
    backward, and its product with J1 one forward more. A step then costs the same whatever K.

    Args:
        gamma: step of the weights, > 0.
        rho: regulariser of the weights, >= 0; it pulls them to equality.
    """

    matrix_free = True
    homogeneous = False  # gamma has the unit of an inverse squared gradient
    search_space = {"gamma": ("log", 1e-4, 1.0), "rho": ("choice", 0.0, 0.01, 0.1)}  # noqa: RUF012  (a class-level constant)

    def __init__(self, *, gamma: float = 1e-3, rho: float = 0.1) -> None:
        check_positive(gamma=gamma)
        check_non_negative(rho=rho)
        super().__init__()
        self.gamma, self.rho = gamma, rho

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        """lambda (K,) after one update with the cross-Gramian ``J1 J2'`` (K, K)."""
        cross = read_cross_gramian(gramian)
        positions = self._joined(self.objectives_of_rows(len(cross))[0])
        return make_tensor_like(self._moved(positions, cross @ self._lambda[positions].numpy()), gramian)

    def weights_to_follow(self, objectives: Sequence[int]) -> torch.Tensor:
        """lambda (K,) of the losses of ``objectives``, to make ``J1 (J2' lambda)`` with."""
        members, positions = joined(self._members, objectives)
        return grown_weights(self._lambda, len(members))[positions]

    def weights_of_product(self, objectives: Sequence[int], products: Array) -> torch.Tensor:
        """lambda (K,) after one update with ``products = J1 J2' lambda`` (K,): no more of the Gramian is needed."""
        return torch.from_numpy(self._moved(self._joined(objectives), products))

    def _moved(self, positions: Sequence[int], products: Array) -> Array:
        current = self._lambda[list(positions)].numpy()
        moved = current - self.gamma * (products + self.rho * current)
        updated = project_mass(moved, self._mass(positions))
        self._store(positions, updated)
        return updated
