"""MaF1: the simplex turned over."""

import math

import torch

from mtopt.problems._registry import register_problem
from mtopt.problems._simplex_points import simplex_points, simplex_split
from mtopt.problems.dtlz import DTLZ, simplex_products


@register_problem("maf1")
class MaF1(DTLZ):
    """f = (1 + g) (1 - s), s = (x_1 .. x_{K-1}, x_1 .. (1 - x_{K-1}), .., 1 - x_1), g = sum (x - .5)^2, x in [0, 1].

    Front: f in [0, 1]^K with sum f = K - 1, the simplex with its corner of best values cut off; preferences that stress
    one objective alone point beside it. Hypervolume at (r, .., r), 1 <= r: sum over j of C(K, j) (r - 1)^(K-j) / j!;
    .347667 at 1.1 for K = 3. (Cheng et al., "A benchmark test suite for evolutionary many-objective optimization",
    2017. libmoon halves the objectives.)

    Args:
        num_objectives: K, default 3.
        num_distances: the number of variables in g, default 10.
    """

    def __init__(self, num_objectives: int = 3, num_distances: int = 10) -> None:
        super().__init__(num_objectives, num_distances)

    @property
    def reference_point(self) -> torch.Tensor:
        return self._constant(1.1)

    @property
    def hypervolume(self) -> float:
        k = self.num_objectives
        return float(sum(math.comb(k, j) * 0.1 ** (k - j) / math.factorial(j) for j in range(k + 1)))

    def _objectives(self, positions: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return (1 + distance).unsqueeze(-1) * (1 - simplex_products(positions))

    def _front_positions(self, n: int) -> torch.Tensor:
        # for two objectives f = 1 - s: the first increases where that of s decreases
        return simplex_split(simplex_points(self.num_objectives, n).flip(0))
