"""ZDT1 to 4 and 6: one distance to the front, one position along it, and what makes either hard."""

import math
from abc import abstractmethod
from functools import cached_property

import numpy as np
import torch

from mtopt.problems._base import Problem, check_count
from mtopt.problems._record_curve import RecordCurve
from mtopt.problems._registry import register_problem

_LEAST_POSITION = 1e-5
"""Where `project` stops x1 if the slope of sqrt(f1) would be infinite at 0."""


class _ZDT(Problem):
    """f1 = x1, f2 = g h(f1, g), with g = 1 + 9 mean(x_2 .. x_n) on [0, 1]^n.

    The Pareto set is x_2 = .. = x_n = 0 with x1 in [0, 1]. It lies on the boundary of the box, so an
    optimizer must `project` after each step, and the gradients there vanish only against the bounds.
    """

    num_objectives = 2

    def __init__(self, num_variables: int = 30) -> None:
        check_count("num_variables", num_variables, minimum=2)
        self.num_variables = num_variables

    @property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        lower = torch.zeros(self.num_variables, dtype=torch.float64)
        return lower, torch.ones_like(lower)

    @property
    def reference_point(self) -> torch.Tensor:
        return torch.full((2,), 1.1, dtype=torch.float64)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        first = self._position(x[..., 0])
        distance = self._distance(x[..., 1:])
        return torch.stack((first, distance * self._trade_off(first, distance)), dim=-1)

    def _position(self, x1: torch.Tensor) -> torch.Tensor:
        """f1."""
        return x1

    def _distance(self, rest: torch.Tensor) -> torch.Tensor:
        """g, 1 on the Pareto set."""
        return 1 + 9 * rest.mean(dim=-1)

    @abstractmethod
    def _trade_off(self, first: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """h, on the front the second objective as a function of the first."""

    def _front_positions(self, n: int) -> torch.Tensor:
        """n values of x1 with increasing f1 whose images on the front are about equally far apart."""
        return torch.linspace(0, 1, n, dtype=torch.float64)

    def _pareto_set(self, n: int) -> torch.Tensor:
        x = torch.zeros(n, self.num_variables, dtype=torch.float64)
        x[:, 0] = self._front_positions(n)
        return x


class _SteepZDT(_ZDT):
    """A front with an infinite slope at f1 = 0: gradient code that clamps to the box as the paper states it gets NaN
    from there; `project` therefore stops at x1 = 1e-5."""

    def _projection_box(self) -> tuple[torch.Tensor, torch.Tensor]:
        lower, upper = self.bounds
        lower[0] = _LEAST_POSITION
        return lower, upper


class _SquareRootFront(_SteepZDT):
    """f2 = g (1 - sqrt(f1/g)): front f2 = 1 - sqrt(f1), hypervolume at (1.1, 1.1) 263/300 = .876667."""

    @property
    def hypervolume(self) -> float:
        return 0.1 + 2 / 3 + 0.1 * 1.1

    def _trade_off(self, first: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return 1 - (first / distance).sqrt()

    def _front_positions(self, n: int) -> torch.Tensor:
        # Squares: equal steps of f1 would leave a gap of 1/sqrt(n) in f2 at the steep end.
        return torch.linspace(0, 1, n, dtype=torch.float64).square()


@register_problem("zdt1")
class ZDT1(_SquareRootFront):
    """ZDT1: f1 = x1, f2 = g (1 - sqrt(f1/g)), g = 1 + 9 mean(x_2 .. x_n), x in [0, 1]^n (default n = 30).

    Front f2 = 1 - sqrt(f1), convex; hypervolume at (1.1, 1.1) is 263/300 = .876667. (Zitzler, Deb, Thiele,
    "Comparison of multiobjective evolutionary algorithms: empirical results", 2000.)

    The slope of f2 in x1 is infinite at x1 = 0; `project` stops at x1 = 1e-5.
    """


@register_problem("zdt2")
class ZDT2(_ZDT):
    """ZDT2: f1 = x1, f2 = g (1 - (f1/g)^2), g = 1 + 9 mean(x_2 .. x_n), x in [0, 1]^n (default n = 30).

    Front f2 = 1 - f1^2, concave: linear scalarization ends at one of its two ends whatever the weights.
    Hypervolume at (1.1, 1.1) is 163/300 = .543333. (Zitzler, Deb, Thiele, 2000, as ZDT1.)
    """

    @property
    def hypervolume(self) -> float:
        return 0.1 + 1 / 3 + 0.1 * 1.1

    def _trade_off(self, first: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return 1 - (first / distance).square()


@register_problem("zdt3")
class ZDT3(_SteepZDT):
    """ZDT3: f1 = x1, f2 = g (1 - sqrt(f1/g) - (f1/g) sin(10 pi f1)), g as ZDT1, x in [0, 1]^n (default n = 30).

    Front: five pieces of f2 = 1 - sqrt(f1) - f1 sin(10 pi f1), f1 in [0, .083002], (.182229, .257762], (.409314,
    .453882], (.618397, .652512], (.823332, .851833]. They are computed: where the curve is below all that is left of
    it. Hypervolume at (1.1, 1.1) 1.331763, the area over that running minimum. (Zitzler, Deb, Thiele, 2000.)

    A descent stays in the valley of f1 where it began: a front needs starts in each of the five.
    """

    @cached_property
    def _curve(self) -> RecordCurve:
        return RecordCurve(lambda f1: 1 - np.sqrt(f1) - f1 * np.sin(10 * np.pi * f1), 0.0, 1.0)

    @property
    def hypervolume(self) -> float:
        return 1.1 * 1.1 - self._curve.integral(1.1)

    def _trade_off(self, first: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        ratio = first / distance
        return 1 - ratio.sqrt() - ratio * torch.sin(10 * math.pi * first)

    def _front_positions(self, n: int) -> torch.Tensor:
        return torch.from_numpy(self._curve.evenly(n))


@register_problem("zdt4")
class ZDT4(_SquareRootFront):
    """ZDT4: ZDT1 with g = 1 + sum_{i>1} (x_i^2 + 10 - 10 cos(4 pi x_i)), x1 in [0, 1], the others in [-5, 5]
    (default n = 10).

    Front and hypervolume of ZDT1. 21^(n-1) local fronts: a descent ends in one near its start. (Zitzler, Deb,
    Thiele, 2000.)
    """

    def __init__(self, num_variables: int = 10) -> None:
        super().__init__(num_variables)

    @property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        upper = torch.full((self.num_variables,), 5.0, dtype=torch.float64)
        lower = -upper
        lower[0], upper[0] = 0.0, 1.0
        return lower, upper

    def _distance(self, rest: torch.Tensor) -> torch.Tensor:
        # 1 - cos(2a) as 2 sin^2(a): no cancellation next to the front
        return 1 + (rest.square() + 20 * torch.sin(2 * math.pi * rest).square()).sum(dim=-1)


@register_problem("zdt6")
class ZDT6(_ZDT):
    """ZDT6: f1 = 1 - exp(-4 x1) sin^6(6 pi x1), f2 = g (1 - (f1/g)^2), g = 1 + 9 mean(x_2 .. x_n)^.25, x in [0, 1]^n
    (default n = 10).

    Front f2 = 1 - f1^2, f1 in [.280775, 1]; hypervolume at (1.1, 1.1) .507878. The Pareto set given here is the
    first of the humps of f1, x1 from 0 to arctan(9 pi)/(6 pi) = .0815; the later ones do not reach as low, and cover
    their part of the front a second time. (Zitzler, Deb, Thiele, 2000.)

    Hard for gradients on both sides: the slope of f1 vanishes between the humps, and that of g is infinite on the
    Pareto set, where `project` stops x_2 .. x_n at 1e-20 (g = 1.0001).
    """

    def __init__(self, num_variables: int = 10) -> None:
        super().__init__(num_variables)

    @property
    def hypervolume(self) -> float:
        least = self._position(torch.tensor(self._first_minimum, dtype=torch.float64)).item()
        return 0.1 * (1 - least) + (1 - least**3) / 3 + 0.1 * 1.1

    @property
    def _first_minimum(self) -> float:
        return math.atan(9 * math.pi) / (6 * math.pi)

    def _position(self, x1: torch.Tensor) -> torch.Tensor:
        return 1 - torch.exp(-4 * x1) * torch.sin(6 * math.pi * x1) ** 6

    def _distance(self, rest: torch.Tensor) -> torch.Tensor:
        return 1 + 9 * rest.mean(dim=-1) ** 0.25

    def _trade_off(self, first: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return 1 - (first / distance).square()

    def _front_positions(self, n: int) -> torch.Tensor:
        """Equal steps of f1, by bisection on the first hump, where f1 falls from 1."""
        low, high = torch.zeros(n, dtype=torch.float64), torch.full((n,), self._first_minimum, dtype=torch.float64)
        wanted = torch.linspace(self._position(high[0]).item(), 1, n, dtype=torch.float64)
        for _ in range(60):
            middle = (low + high) / 2
            too_high = self._position(middle) > wanted
            low, high = torch.where(too_high, middle, low), torch.where(too_high, high, middle)
        positions = high
        positions[-1] = 0.0
        positions[0] = self._first_minimum
        return positions

    def _projection_box(self) -> tuple[torch.Tensor, torch.Tensor]:
        lower, upper = self.bounds
        lower[1:] = 1e-20
        return lower, upper
