"""SCH, JOS1 and VLMOP1: two squared distances, the simplest fronts there are."""

import math

import torch

from mtopt.problems._base import check_count
from mtopt.problems._convex_front import ConvexFrontProblem
from mtopt.problems._registry import register_problem


class _SpherePair(ConvexFrontProblem):
    """f_i = factor ||x - c_i (1, .., 1)||^2, i = 1, 2.

    Pareto set: all coordinates equal, between c_1 and c_2. Front: sqrt(f1) + sqrt(f2) = sqrt(d), with d the value of
    each objective at the minimum of the other. Its hypervolume at (r, r), r >= d, is r^2 - d^2 / 6. Convex and smooth:
    any gradient rule that converges at all must reach it.
    """

    _factor: float
    _centers: tuple[float, float]
    _half_width: float

    def __init__(self, num_variables: int) -> None:
        check_count("num_variables", num_variables)
        self.num_variables = num_variables

    @property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        upper = torch.full((self.num_variables,), self._half_width, dtype=torch.float64)
        return -upper, upper

    @property
    def reference_point(self) -> torch.Tensor:
        first, second = self._centers
        worst = self._factor * self.num_variables * (first - second) ** 2
        return torch.full((2,), 1.1 * worst, dtype=torch.float64)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        distances = [(x - center).square().sum(dim=-1) for center in self._centers]
        return self._factor * torch.stack(distances, dim=-1)

    def _weighted_minimizer(self, weight: torch.Tensor) -> torch.Tensor:
        first, second = self._centers
        coordinate = weight * first + (1 - weight) * second
        return coordinate.unsqueeze(-1).repeat_interleave(self.num_variables, dim=-1)


@register_problem("sch")
class SCH(_SpherePair):
    """f1 = x^2, f2 = (x - 2)^2, x in [-1000, 1000].

    Pareto set [0, 2]; front sqrt(f1) + sqrt(f2) = 2; hypervolume 40/3 at (4, 4), and 4.4^2 - 8/3 = 16.6933 at the
    reference point (4.4, 4.4). (Schaffer 1985.)
    """

    _factor = 1.0
    _centers = (0.0, 2.0)
    _half_width = 1000.0

    def __init__(self) -> None:
        super().__init__(1)


@register_problem("jos1")
class JOS1(_SpherePair):
    """f1 = mean x_i^2, f2 = mean (x_i - 2)^2, x in [-100, 100]^n (default n = 50).

    Pareto set: all x_i equal, in [0, 2]; front and hypervolume those of `SCH`. (Jin, Olhofer, Sendhoff 2001. The box
    is the one in use with gradient methods; it holds the whole set.)
    """

    _centers = (0.0, 2.0)
    _half_width = 100.0

    def __init__(self, num_variables: int = 50) -> None:
        super().__init__(num_variables)
        self._factor = 1 / num_variables


@register_problem("vlmop1")
class VLMOP1(_SpherePair):
    """f1 = ||x - 1/sqrt(n)||^2 / 4, f2 = ||x + 1/sqrt(n)||^2 / 4, x in [-1, 1]^n (default n = 2).

    Pareto set: x_i = t/sqrt(n), t in [-1, 1]; front sqrt(f1) + sqrt(f2) = 1; hypervolume 5/6 at (1, 1), and
    1.21 - 1/6 = 1.04333 at the reference point (1.1, 1.1).

    This scaled form in n variables is the one in use with gradient methods (libmoon); Van Veldhuizen and Lamont's
    MOP1 (1999) is `SCH` on a wider box.
    """

    _factor = 0.25
    _half_width = 1.0

    def __init__(self, num_variables: int = 2) -> None:
        super().__init__(num_variables)
        center = 1 / math.sqrt(num_variables)
        self._centers = (center, -center)
