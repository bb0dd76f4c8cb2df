"""Losses that differentiate inside: u'' = -u on a batch of points, and u(0) = 1."""

from __future__ import annotations

import torch
from torch import nn


class Field(nn.Module):
    """u(x), among noise and statistics, to see what a second look leaves."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)
        self.drawn: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.drawn.append(float(torch.rand(())))
        return self.last(torch.tanh(self.norm(self.first(x))))


def physics_losses(field: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.detach().requires_grad_()
    u = field(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return {"residual": 1 + (curvature + u).square().mean(), "start": 1 + (u[:1] - 1).square().mean()}


def points(count: int = 16) -> torch.Tensor:
    return torch.linspace(0, 1, count)[:, None]
