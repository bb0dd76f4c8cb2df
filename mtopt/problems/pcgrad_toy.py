"""The two-dimensional landscape of the PCGrad paper."""

import math

import torch

from mtopt.problems._base import Problem
from mtopt.problems._registry import register_problem

_SMALLEST_LOGARITHM_ARGUMENT = 5e-6


@register_problem("pcgrad_toy")
class PCGradToy(Problem):
    """f1 = 20 log max(|x1/2 + tanh x2|, 5e-6), f2 = 25 log max(|x1/2 - tanh x2 + 2|, 5e-6); unbounded.

    Two deep, curved valleys with steep walls that conflict in most of the plane. They meet where both arguments of
    the logarithm reach its floor: at x1 = -2 from x2 = artanh(1 - 5e-6) = 6.45 on. There both objectives are least,
    20 log 5e-6 = -244.12 and 25 log 5e-6 = -305.15: **the front is a single point**, and the Pareto set a thin tongue
    around that ray. `pareto_set` gives points of the ray, up to x2 = 10; `pareto_front` repeats the one point.

    Start (.5, -3), Adam 1e-3 in the paper (Yu et al., "Gradient surgery for multi-task learning", 2020). Far out the
    slope in x2 vanishes like 1 - tanh^2 x2, so arrival means a small gap to the point, seldom the point.
    """

    num_variables = 2
    num_objectives = 2

    @property
    def start_region(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([-10.0, -5.0], dtype=torch.float64), torch.tensor([10.0, 5.0], dtype=torch.float64)

    @property
    def starts(self) -> torch.Tensor:
        return torch.tensor([[0.5, -3.0]], dtype=torch.float64)

    @property
    def reference_point(self) -> torch.Tensor:
        return torch.zeros(2, dtype=torch.float64)

    @property
    def hypervolume(self) -> float:
        return 20 * 25 * math.log(_SMALLEST_LOGARITHM_ARGUMENT) ** 2

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        x1, x2 = x.unbind(dim=-1)
        bend = torch.tanh(x2)
        arguments = torch.stack((x1 / 2 + bend, x1 / 2 - bend + 2), dim=-1)
        depth = arguments.abs().clamp(min=_SMALLEST_LOGARITHM_ARGUMENT).log()
        return depth * torch.tensor([20.0, 25.0]).to(x)

    def _pareto_set(self, n: int) -> torch.Tensor:
        along = torch.linspace(math.atanh(1 - _SMALLEST_LOGARITHM_ARGUMENT / 2), 10, n, dtype=torch.float64)
        return torch.stack((torch.full_like(along, -2), along), dim=-1)
