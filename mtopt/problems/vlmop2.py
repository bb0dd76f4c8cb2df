"""VLMOP2 and the Fonseca-Fleming problem: one pair of objectives, two boxes."""

import math

import torch

from mtopt.problems._base import Problem, check_count
from mtopt.problems._registry import register_problem


@register_problem("vlmop2")
class VLMOP2(Problem):
    """f1 = 1 - exp(-||x - 1/sqrt(n)||^2), f2 = 1 - exp(-||x + 1/sqrt(n)||^2), x in [-2, 2]^n (default n = 2).

    Pareto set: x_i = t/sqrt(n), all coordinates equal, t in [-1, 1]; front f = 1 - exp(-(t -+ 1)^2).
    Hypervolume at reference (r, r): (r-1)(1-e^-4) + e^-2 sqrt(2 pi) erf(sqrt 2) + r (r-1+e^-4); .552116 at
    r = 1.1.

    The front is concave for |t| < 1/sqrt(2) and convex only in the short caps beyond. Linear scalarization
    reaches just |t| >= .9575 (the root of artanh t = 2t): in effect the two ends, whatever the weights.

    Sources: Fonseca and Fleming 1995 (box [-4, 4]^n); Van Veldhuizen and Lamont 1999 (VLMOP2, box [-2, 2]).
    The papers on EPO and Pareto MTL use it without a box at n = 20. The front is the same in all of them.
    Some libraries exchange the names VLMOP1 and VLMOP2: VLMOP1 is the pair of quadratics.

    Both gradients vanish like exp(-||x||^2), so at n = 20 a start drawn from the whole box does not move.
    `sample_starts` draws from |x_i| <= 2/sqrt(n) (and the box) instead, which keeps ||x|| of order one for
    any n.
    """

    num_objectives = 2

    _half_width = 2.0

    def __init__(self, num_variables: int = 2) -> None:
        check_count("num_variables", num_variables)
        self.num_variables = num_variables

    @property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        upper = torch.full((self.num_variables,), self._half_width, dtype=torch.float64)
        return -upper, upper

    @property
    def start_region(self) -> tuple[torch.Tensor, torch.Tensor]:
        lower, upper = self.bounds
        return lower / math.sqrt(self.num_variables), upper / math.sqrt(self.num_variables)

    @property
    def reference_point(self) -> torch.Tensor:
        return torch.full((2,), 1.1, dtype=torch.float64)

    @property
    def hypervolume(self) -> float:
        reference, end = 1.1, math.exp(-4)
        middle = math.exp(-2) * math.sqrt(2 * math.pi) * math.erf(math.sqrt(2))
        return (reference - 1) * (1 - end) + middle + reference * (reference - 1 + end)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        center = 1 / math.sqrt(self.num_variables)
        distances = torch.stack(((x - center).square().sum(-1), (x + center).square().sum(-1)), dim=-1)
        # 1 - exp(-d) as -expm1(-d): no cancellation next to a minimum
        return -torch.expm1(-distances)

    def _pareto_set(self, n: int) -> torch.Tensor:
        position = torch.linspace(1, -1, n, dtype=torch.float64) / math.sqrt(self.num_variables)
        return position.unsqueeze(-1).repeat(1, self.num_variables)


@register_problem("fonseca_fleming")
class FonsecaFleming(VLMOP2):
    """The objectives of `VLMOP2` on the box of their first paper, x in [-4, 4]^n (default n = 3): same set and front.

    (Fonseca and Fleming 1995; the three variables are those of later collections.) The wider box matters to methods
    that draw from all of it; `sample_starts` draws from |x_i| <= 4/sqrt(n), where part of the starts has practically
    no gradient.
    """

    _half_width = 4.0

    def __init__(self, num_variables: int = 3) -> None:
        super().__init__(num_variables)
