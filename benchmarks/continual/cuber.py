"""CUBER: which old tasks may be changed by a new one, and the projection that keeps the others.

Lin, Yang, Fan and Zhang, "Beyond not-forgetting: continual learning with backward knowledge transfer", NeurIPS 2022
(arXiv 2211.00789). All of it is layer by layer, for weights W (outputs, inputs) and their gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

Regime = Literal["orthogonal", "scaled", "free"]


def input_basis(inputs: torch.Tensor, energy: float) -> torch.Tensor:
    """An orthonormal basis (d, k) of a layer's inputs (n, d): as few directions as hold ``energy`` of their squares.

    The k first left singular vectors of inputs' (d, n), k the smallest number with ``sum_{i<=k} s_i² >= energy sum_i
    s_i²`` (gradient projection memory).
    """
    if not 0 < energy <= 1:
        raise ValueError(f"energy must be in (0, 1], found {energy}")
    _, values, directions = torch.linalg.svd(inputs.double(), full_matrices=False)
    shares = (values**2).cumsum(0) / (values**2).sum()
    rank = int((values > values[0] * 1e-7).sum())  # of float32 activations: what is below is rounding
    count = min(int((shares < energy).sum()) + 1, rank)
    basis: torch.Tensor = directions[:count].T.to(inputs.dtype).contiguous()
    return basis


def project(gradient: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Proj_S(G) = G B B': (outputs, inputs) for a basis (inputs, k)."""
    return gradient @ basis @ basis.T


def regime(
    gradient: torch.Tensor, basis: torch.Tensor, old_gradient: torch.Tensor, *, sufficient: float, positive: float
) -> Regime:
    """How a layer of an old task is treated while a new one is learned.

    Args:
        gradient: of the new loss, at the weights before it is learned, (outputs, inputs).
        basis: of the old task's inputs, (inputs, k).
        old_gradient: of the old loss, as it was when that task was done.
        sufficient: the projection is sufficient with ``||Proj_S(G)|| >= sufficient ||G||``.
        positive: the correlation is positive with ``<G_old, G> >= positive ||G_old|| ||G||``.

    Returns:
        ``"orthogonal"`` if not sufficient: the weights stay as they are on the old inputs. ``"scaled"`` if sufficient
        and not positive: the same, and the new task may use those weights scaled. ``"free"`` if both: they may change.
    """
    size = gradient.norm()
    if project(gradient, basis).norm() < sufficient * size:
        return "orthogonal"
    inner = (old_gradient * gradient).sum()
    return "free" if inner >= positive * old_gradient.norm() * size else "scaled"


def joint_basis(bases: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """An orthonormal basis of the sum of the spaces that are spanned; None for no space."""
    if not bases:
        return None
    together = torch.cat(list(bases), 1).double()
    directions, values, _ = torch.linalg.svd(together, full_matrices=False)
    basis: torch.Tensor = directions[:, values > 1e-6].to(bases[0].dtype)
    return basis


def remove(gradient: torch.Tensor, basis: torch.Tensor | None) -> torch.Tensor:
    """What is orthogonal to the space: G - Proj_S(G)."""
    return gradient if basis is None else gradient - project(gradient, basis)
