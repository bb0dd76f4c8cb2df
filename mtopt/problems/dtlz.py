"""DTLZ1 to 7: any number of objectives, and fronts that are a simplex, a sphere, a curve or patches."""

import math
from abc import abstractmethod
from functools import cached_property

import numpy as np
import torch

from mtopt.problems._base import Problem, check_count
from mtopt.problems._record_curve import RecordCurve
from mtopt.problems._registry import register_problem
from mtopt.problems._simplex_points import simplex_points, simplex_split


class DTLZ(Problem):
    """K objectives of n = K - 1 + k variables in [0, 1]: K - 1 positions on the front, then k distances from it.

    All of Deb, Thiele, Laumanns, Zitzler, "Scalable test problems for evolutionary multi-objective optimization",
    2005. (DTLZ6 and 7 here are DTLZ6 and 7 of that chapter and of most code; an earlier report numbers them 5a and
    6.)

    Args:
        num_objectives: K, default 3.
        num_distances: k, the number of distance variables.
    """

    def __init__(self, num_objectives: int, num_distances: int) -> None:
        check_count("num_objectives", num_objectives, minimum=2)
        check_count("num_distances", num_distances)
        self.num_objectives = num_objectives
        self.num_variables = num_objectives - 1 + num_distances

    @property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        lower = torch.zeros(self.num_variables, dtype=torch.float64)
        return lower, torch.ones_like(lower)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        positions = self.num_objectives - 1
        return self._objectives(x[..., :positions], self._distance(x[..., positions:]))

    @abstractmethod
    def _objectives(self, positions: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """The objectives (..., K) from x_1 .. x_{K-1} and g (...)."""

    def _distance(self, rest: torch.Tensor) -> torch.Tensor:
        """g, 0 on the Pareto set."""
        return (rest - 0.5).square().sum(dim=-1)

    _best_rest = 0.5
    """The value of each distance variable on the Pareto set."""

    @abstractmethod
    def _front_positions(self, n: int) -> torch.Tensor:
        """x_1 .. x_{K-1} (n, K-1) of n points on the front, evenly spread there."""

    def _pareto_set(self, n: int) -> torch.Tensor:
        x = torch.full((n, self.num_variables), self._best_rest, dtype=torch.float64)
        x[:, : self.num_objectives - 1] = self._front_positions(n)
        return x

    def _constant(self, value: float) -> torch.Tensor:
        return torch.full((self.num_objectives,), value, dtype=torch.float64)


def rugged_distance(rest: torch.Tensor) -> torch.Tensor:
    """100 (k + sum ((x - .5)^2 - cos(20 pi (x - .5)))): 11^k - 1 local minima beside the one at .5."""
    offset = rest - 0.5
    # 1 - cos(2a) as 2 sin^2(a): no cancellation next to the front
    return 100 * (offset.square() + 2 * torch.sin(10 * math.pi * offset).square()).sum(dim=-1)


def simplex_products(positions: torch.Tensor) -> torch.Tensor:
    """(x_1 .. x_{K-1}, x_1 .. x_{K-2} (1 - x_{K-1}), .., 1 - x_1): the simplex from the cube, (..., K)."""
    ones = torch.ones_like(positions[..., :1])
    products = torch.cat((ones, positions.cumprod(dim=-1)), dim=-1).flip(-1)
    rests = torch.cat((ones, 1 - positions.flip(-1)), dim=-1)
    return products * rests


def sphere_products(angles: torch.Tensor) -> torch.Tensor:
    """(cos a_1 .. cos a_{K-1}, cos a_1 .. cos a_{K-2} sin a_{K-1}, .., sin a_1): the unit sphere, (..., K)."""
    ones = torch.ones_like(angles[..., :1])
    cosines = torch.cat((ones, angles.cos().cumprod(dim=-1)), dim=-1).flip(-1)
    sines = torch.cat((ones, angles.sin().flip(-1)), dim=-1)
    return cosines * sines


@register_problem("dtlz1")
class DTLZ1(DTLZ):
    """DTLZ1: f = 1/2 (1 + g) (x_1 .. x_{K-1}, x_1 .. (1 - x_{K-1}), .., 1 - x_1), k = 5,
    g = 100 (k + sum ((x - .5)^2 - cos(20 pi (x - .5)))).

    Front: the simplex sum f = 1/2. Hypervolume at (r, .., r), r >= 1/2: r^K - 2^-K / K!; .145542 at the reference
    point .55 for K = 3, .979167 at 1. 11^k - 1 local fronts: gradients end in the nearest.
    """

    def __init__(self, num_objectives: int = 3, num_distances: int = 5) -> None:
        super().__init__(num_objectives, num_distances)

    @property
    def reference_point(self) -> torch.Tensor:
        return self._constant(0.55)

    @property
    def hypervolume(self) -> float:
        return float(0.55**self.num_objectives - 0.5**self.num_objectives / math.factorial(self.num_objectives))

    def _distance(self, rest: torch.Tensor) -> torch.Tensor:
        return rugged_distance(rest)

    def _objectives(self, positions: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return 0.5 * (1 + distance).unsqueeze(-1) * simplex_products(positions)

    def _front_positions(self, n: int) -> torch.Tensor:
        return simplex_split(simplex_points(self.num_objectives, n))


class _SphereFront(DTLZ):
    """Front: the part of the unit sphere with f >= 0. Its hypervolume at (r, .., r), r >= 1, is r^K less the
    2^K-th part of the ball."""

    def __init__(self, num_objectives: int = 3, num_distances: int = 10) -> None:
        super().__init__(num_objectives, num_distances)

    _power = 1

    @property
    def reference_point(self) -> torch.Tensor:
        return self._constant(1.1)

    @property
    def hypervolume(self) -> float:
        half = self.num_objectives / 2
        return float(1.1**self.num_objectives - math.pi**half / math.gamma(half + 1) / 2**self.num_objectives)

    def _objectives(self, positions: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        return (1 + distance).unsqueeze(-1) * sphere_products(positions**self._power * (math.pi / 2))

    def _front_positions(self, n: int) -> torch.Tensor:
        if self.num_objectives == 2:
            angles = torch.linspace(math.pi / 2, 0, n, dtype=torch.float64).unsqueeze(-1)
        else:
            # sin^2 of the angles splits the squares f_i^2 as the cube splits a simplex
            points = simplex_points(self.num_objectives, n)
            squares = points.square() / points.square().sum(dim=1, keepdim=True)
            angles = torch.acos(simplex_split(squares).sqrt().clamp(max=1))
        return (angles / (math.pi / 2)) ** (1 / self._power)


@register_problem("dtlz2")
class DTLZ2(_SphereFront):
    """DTLZ2: f = (1 + g) (cos a_1 .. cos a_{K-1}, cos a_1 .. sin a_{K-1}, .., sin a_1), a = pi x / 2, k = 10,
    g = sum (x - .5)^2.

    Front: the unit sphere, f >= 0, concave. Hypervolume at 1.1: .807401 for K = 3, .424602 for K = 2. Unimodal.
    The minima of linear scalarizations with positive weights are its corners.
    """


@register_problem("dtlz3")
class DTLZ3(_SphereFront):
    """DTLZ3: DTLZ2 with the g of DTLZ1, k = 10. Same front; 11^k - 1 local fronts: gradients end in the nearest."""

    def _distance(self, rest: torch.Tensor) -> torch.Tensor:
        return rugged_distance(rest)


@register_problem("dtlz4")
class DTLZ4(_SphereFront):
    """DTLZ4: DTLZ2 with x^100 in place of each position x. Same front.

    The slope 100 x^99 vanishes over most of the box, where f_1 .. f_K hardly feel the positions.
    (libmoon takes the power 20.)
    """

    _power = 100


class _CurveFront(DTLZ):
    """f as DTLZ2 with a_1 = pi x_1 / 2 and a_i = pi/4 (1 + 2 g x_i) / (1 + g) for i > 1.

    For K <= 3 the front is the curve a_2 = .. = pi/4, a_1 in [0, pi/2]. For K > 3 points with g > 0 are not dominated
    either, against the chapter's intention (Huband, Hingston, Barone, While 2006): the whole front is not known.
    """

    def __init__(self, num_objectives: int = 3, num_distances: int = 10) -> None:
        super().__init__(num_objectives, num_distances)

    @property
    def reference_point(self) -> torch.Tensor:
        return self._constant(1.1)

    @property
    def hypervolume(self) -> float | None:
        if self.num_objectives == 2:
            return 1.1**2 - math.pi / 4
        if self.num_objectives == 3:
            # at height z = f3 below 1 the square (r - sqrt(1 - z^2)/sqrt(2))^2, above it r^2
            return 1.1**3 - 1.1 * math.sqrt(2) * math.pi / 4 + 1 / 3
        return None

    def _objectives(self, positions: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        g = distance.unsqueeze(-1)
        others = (1 + 2 * g * positions[..., 1:]) / (2 * (1 + g))
        return (1 + g) * sphere_products(math.pi / 2 * torch.cat((positions[..., :1], others), dim=-1))

    def _front_positions(self, n: int) -> torch.Tensor:
        if self.num_objectives > 3:
            raise LookupError(
                f"the Pareto front of problem '{self.name}' is not known for {self.num_objectives} objectives, only "
                "for 2 and 3: points off the intended curve are not dominated either"
            )
        positions = torch.full((n, self.num_objectives - 1), 0.5, dtype=torch.float64)
        positions[:, 0] = torch.linspace(1, 0, n, dtype=torch.float64)
        return positions


@register_problem("dtlz5")
class DTLZ5(_CurveFront):
    """DTLZ5: DTLZ2 bent so that the front is a curve; g = sum (x - .5)^2, k = 10.

    Front for K = 3: (cos a / sqrt(2), cos a / sqrt(2), sin a). Hypervolume at (1.1, 1.1, 1.1): 1.331 - 1.1 sqrt(2)
    pi/4 + 1/3 = .442541. For K > 3 the front is not known.
    """


@register_problem("dtlz6")
class DTLZ6(_CurveFront):
    """DTLZ6: DTLZ5 with g = sum x^.1, k = 10. Same front, at x = 0 for the distance variables.

    The slope of g is infinite on the Pareto set and small elsewhere: steps of a fixed length overshoot. `project`
    stops the distance variables at 1e-30, where g is .001 k.
    """

    _best_rest = 0.0

    def _distance(self, rest: torch.Tensor) -> torch.Tensor:
        return (rest**0.1).sum(dim=-1)

    def _projection_box(self) -> tuple[torch.Tensor, torch.Tensor]:
        lower, upper = self.bounds
        lower[self.num_objectives - 1 :] = 1e-30
        return lower, upper


@register_problem("dtlz7")
class DTLZ7(DTLZ):
    """DTLZ7: f_i = x_i for i < K, f_K = (1 + g) (K - sum_{i<K} f_i / (1 + g) (1 + sin(3 pi f_i))), k = 20,
    g = 1 + 9 mean of the distance variables.

    On the front, g = 1 and f_K = 2 K + sum h(f_i), h(u) = -u (1 + sin(3 pi u)): a point is not dominated exactly where
    each f_i lies on a part of h below all of h to its left. There are two such parts, so 2^(K-1) patches. With m
    the running minimum of h, the hypervolume at (r, .., r, R) is r^(K-1) (R - 2K) - (K-1) r^(K-2) times the integral
    of m over [0, r]. Reference point (1.1, .., 1.1, 2.2 K): f_K is at most 2 K on the front.

    Smooth, but a descent stays in the valley of each f_i where it began.
    """

    def __init__(self, num_objectives: int = 3, num_distances: int = 20) -> None:
        super().__init__(num_objectives, num_distances)

    _best_rest = 0.0

    @cached_property
    def _curve(self) -> RecordCurve:
        return RecordCurve(lambda u: -u * (1 + np.sin(3 * np.pi * u)), 0.0, 1.0)

    @property
    def reference_point(self) -> torch.Tensor:
        reference = self._constant(1.1)
        reference[-1] = 2.2 * self.num_objectives
        return reference

    @property
    def hypervolume(self) -> float:
        others = self.num_objectives - 1
        room = 0.2 * self.num_objectives
        return float(1.1**others * room - others * 1.1 ** (others - 1) * self._curve.integral(1.1))

    def _distance(self, rest: torch.Tensor) -> torch.Tensor:
        return 1 + 9 * rest.mean(dim=-1)

    def _objectives(self, positions: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        waves = (positions * (1 + torch.sin(3 * math.pi * positions))).sum(dim=-1)
        last = (1 + distance) * self.num_objectives - waves
        return torch.cat((positions, last.unsqueeze(-1)), dim=-1)

    def _front_positions(self, n: int) -> torch.Tensor:
        if self.num_objectives == 2:
            return torch.from_numpy(self._curve.evenly(n)).unsqueeze(-1)
        from scipy.stats.qmc import Halton

        shares = Halton(d=self.num_objectives - 1, scramble=False).random(n)
        return torch.from_numpy(self._curve.positions(shares))
