"""Points of a simplex in any number, for the fronts that are images of one."""

import torch

from mtopt.pareto.preferences import uniform_preferences


def simplex_points(num_objectives: int, n: int) -> torch.Tensor:
    """n points (n, K) of the simplex, evenly spread; its corners are among them, or only some of them for n < K.

    For K = 2 the first entry increases from row to row.
    """
    return uniform_preferences(num_objectives, max(n, num_objectives)).flip(0)[:n]


def simplex_split(points: torch.Tensor) -> torch.Tensor:
    """x (n, K-1) in [0, 1] with points = (x_1 .. x_{K-1}, x_1 .. (1 - x_{K-1}), .., 1 - x_1), from points (n, K).

    Where the product is zero before x_i is reached, x_i is free, and 1/2 is taken.
    """
    splits = []
    left = torch.ones_like(points[:, 0])
    for part in points.flip(1)[:, :-1].unbind(dim=1):
        left_after = (left - part).clamp(min=0)
        free = left <= 0
        splits.append(torch.where(free, 0.5, left_after / torch.where(free, 1.0, left)))
        left = left_after
    return torch.stack(splits, dim=1)
