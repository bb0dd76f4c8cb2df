"""Gradients with noise, values without."""

import torch


def with_gradient_noise(values: torch.Tensor, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The values (..., K) of `x` (..., n), unchanged, whose gradients in `x` have `noise` added.

    Args:
        values: a problem's objectives at `x`.
        x: where they were evaluated.
        noise: (..., n), the same for all objectives, or (..., K, n), a row for each.
    """
    if noise.shape[-1] != x.shape[-1]:
        raise ValueError(f"noise must have {x.shape[-1]} entries in its last dimension, found {tuple(noise.shape)}")
    per_objective = noise if noise.ndim == x.ndim + 1 else noise.unsqueeze(-2)
    # zero as a number, the noise as a gradient
    return values + ((x - x.detach()).unsqueeze(-2) * per_objective.to(x)).sum(dim=-1)
