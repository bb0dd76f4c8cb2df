"""VLMOP3, Viennet's problem: three objectives of two variables."""

from functools import cache

import torch

from mtopt.pareto.dominance import is_nondominated
from mtopt.problems._base import Problem
from mtopt.problems._registry import register_problem

_GRID = 1201


@register_problem("vlmop3")
class VLMOP3(Problem):
    """f1 = r/2 + sin r, f2 = (3x - 2y + 4)^2/8 + (x - y + 1)^2/27 + 15, f3 = 1/(r + 1) - 1.1 exp(-r), r = x^2 + y^2,
    (x, y) in [-3, 3]^2.

    The Pareto set is a part of the plane, disconnected, with no closed form. `pareto_set` takes its points from those
    of a grid of step .005 that no other point of the grid dominates, each the farthest in the objectives, scaled by
    their ranges, from those before it. A point within a step of the border of the true set may be dominated by points
    between those of the grid, by little. The hypervolume is not known in closed form.

    Reference point: (9, 18, .2). (Viennet, Fonteix, Marc 1996; Van Veldhuizen and Lamont 1999, MOP5.)
    """

    num_variables = 2
    num_objectives = 3

    @property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        upper = torch.full((2,), 3.0, dtype=torch.float64)
        return -upper, upper

    @property
    def reference_point(self) -> torch.Tensor:
        return torch.tensor([9.0, 18.0, 0.2], dtype=torch.float64)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        radius = x.square().sum(dim=-1)
        first, second = x.unbind(dim=-1)
        slopes = (3 * first - 2 * second + 4).square() / 8 + (first - second + 1).square() / 27
        return torch.stack(
            (radius / 2 + radius.sin(), slopes + 15, 1 / (radius + 1) - 1.1 * torch.exp(-radius)), dim=-1
        )

    def _pareto_set(self, n: int) -> torch.Tensor:
        candidates = _nondominated_grid()
        values = self.evaluate(candidates)
        scaled = (values - values.amin(dim=0)) / (values.amax(dim=0) - values.amin(dim=0))
        # the ends first: the best of each objective
        chosen = scaled.argmin(dim=0).tolist()[:n]
        distances = torch.cdist(scaled, scaled[chosen]).amin(dim=1)
        while len(chosen) < n:
            farthest = int(distances.argmax())
            chosen.append(farthest)
            distances = torch.minimum(distances, (scaled - scaled[farthest]).norm(dim=1))
        return candidates[chosen]


@cache
def _nondominated_grid() -> torch.Tensor:
    axis = torch.linspace(-3, 3, _GRID, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    return grid[is_nondominated(VLMOP3().evaluate(grid))]
