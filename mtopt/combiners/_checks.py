"""What goes into a rule and what comes out of it, checked: a wrong answer would otherwise train silently."""

from __future__ import annotations

import math

import torch

from mtopt._errors import NonFiniteError


class ChecksVectors:
    """The losses that a rule reads, and the weights that it answers with."""

    def _losses(self, losses: torch.Tensor | None, count: int) -> torch.Tensor:
        """The loss values as a float64 vector on the CPU."""
        if losses is None:
            raise ValueError(f"{type(self).__name__} reads the loss values: give losses, a tensor of shape ({count},)")
        vector = torch.as_tensor(losses).detach()
        if vector.dtype != torch.float64 or not vector.is_cpu:
            vector = vector.to("cpu", torch.float64)
        if vector.shape != (count,):
            raise ValueError(f"losses must have shape ({count},), one for each row, found {tuple(vector.shape)}")
        return vector

    def _weights(self, weights: torch.Tensor, count: int) -> torch.Tensor:
        """A rule's answer, checked: a wrong one would otherwise train silently."""
        if not isinstance(weights, torch.Tensor) or weights.shape != (count,):
            found = tuple(weights.shape) if isinstance(weights, torch.Tensor) else type(weights).__name__
            raise ValueError(f"{type(self).__name__}.weights must return a tensor of shape ({count},), found {found}")
        weights = weights.detach()
        if weights.dtype != torch.float64 or not weights.is_cpu:
            weights = weights.to("cpu", torch.float64)
        if not all(map(math.isfinite, weights.tolist())):
            raise NonFiniteError(
                f"{type(self).__name__}.weights returned {weights.tolist()} for finite gradients; "
                "give zero rows and parallel rows a defined answer"
            )
        return weights


def require_finite(rule: object, direction: torch.Tensor, bound: float = math.inf) -> None:
    """Raise NonFiniteError for a direction that is not finite; ``bound`` is what no entry is larger than."""
    if not bound < 0.25 * torch.finfo(direction.dtype).max and not bool(direction.isfinite().all()):
        raise NonFiniteError(
            f"the direction of {rule!r} overflows {direction.dtype}, though jacobian is finite; scale the losses down, "
            "or give jacobian in a wider dtype"
        )
