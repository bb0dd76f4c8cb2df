"""TOFU's learning rates."""

from __future__ import annotations

import torch


def linear_schedule(
    optimizer: torch.optim.Optimizer, total: int, *, rising: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """A linear rise to the optimizer's rate over ``rising`` of ``total`` steps, then a linear fall to zero."""
    rising = min(rising, total - 1)

    def share(step: int) -> float:
        return float((step + 1) / (rising + 1) if step < rising else max(0.0, (total - step) / (total - rising)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)
