"""Strictly convex quadratics with different curvatures: every trade-off is known in closed form."""

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from mtopt.problems._base import Problem, check_count
from mtopt.problems._convex_front import ConvexFrontProblem
from mtopt.problems._registry import register_problem
from mtopt.problems._simplex_points import simplex_points

Array = torch.Tensor | NDArray[np.floating] | Sequence[object]


@register_problem("quadratics")
class Quadratics(Problem):
    """f_i = 1/2 (x - a_i)' A_i (x - a_i), i = 1 .. K, with A_i symmetric positive definite; unbounded.

    Pareto set: x(w) = (sum w_i A_i)^-1 (sum w_i A_i a_i), w in the simplex: the minimiser of sum w_i f_i. It is curved
    unless the A_i are multiples of each other, so averaging the minima is not enough. The front is convex and the
    problem smooth: every gradient rule that converges at all must converge here.

    Args:
        num_variables: n, default 2; or the size of the matrices or centers given.
        num_objectives: K, default 3; or the number of matrices or centers given.
        condition: condition number of each drawn A_i, its eigenvalues spread geometrically from 1 to it over
            axes drawn for each i; default 10.
        seed: of the draw of matrices and centers; default 0.
        matrices: A_1 .. A_K, (K, n, n), in place of the drawn ones.
        centers: a_1 .. a_K, (K, n), in place of the drawn ones (of unit norm).

    Reference point: in each objective 1.1 times its largest value on the front; for K = 2 that is its value at the
    other center, for more it is taken from 500 points of the front, since a mixture of two other objectives can be
    worse for the third than either. `sample_starts` draws from the box around the centers, widened on each
    side by twice their greatest distance.
    """

    def __init__(
        self,
        num_variables: int | None = None,
        num_objectives: int | None = None,
        *,
        condition: float = 10.0,
        seed: int = 0,
        matrices: Array | None = None,
        centers: Array | None = None,
    ) -> None:
        given = next((torch.as_tensor(each).shape for each in (centers, matrices) if each is not None), None)
        if num_variables is None:
            num_variables = 2 if given is None else given[-1]
        if num_objectives is None:
            num_objectives = 3 if given is None else given[0]
        check_count("num_variables", num_variables)
        check_count("num_objectives", num_objectives, minimum=2)
        if not (condition >= 1 and math.isfinite(condition)):
            raise ValueError(f"condition must be finite and at least 1, found {condition}")
        self.num_variables = num_variables
        self.num_objectives = num_objectives
        generator = torch.Generator().manual_seed(seed)
        # Both are always drawn, so that giving one leaves the other as it was.
        drawn_matrices = torch.stack([_draw_matrix(num_variables, condition, generator) for _ in range(num_objectives)])
        drawn_centers = torch.randn(num_objectives, num_variables, generator=generator, dtype=torch.float64)
        drawn_centers /= drawn_centers.norm(dim=-1, keepdim=True)
        shape = (num_objectives, num_variables)
        self._matrices = drawn_matrices if matrices is None else _checked_matrices(matrices, *shape)
        self._centers = drawn_centers if centers is None else _checked_centers(centers, *shape)
        if (self._centers == self._centers[0]).all():
            if centers is not None:
                raise ValueError("centers must differ: with one for all the objectives do not conflict")
            # in one dimension all drawn centers of unit norm may coincide
            self._centers[1:] = -self._centers[0]

    @property
    def matrices(self) -> torch.Tensor:
        """A_1 .. A_K, (K, n, n)."""
        return self._matrices.clone()

    @property
    def centers(self) -> torch.Tensor:
        """a_1 .. a_K, (K, n)."""
        return self._centers.clone()

    @property
    def start_region(self) -> tuple[torch.Tensor, torch.Tensor]:
        margin = 2 * torch.cdist(self._centers, self._centers).max()
        return self._centers.amin(dim=0) - margin, self._centers.amax(dim=0) + margin

    @property
    def reference_point(self) -> torch.Tensor:
        return self._reference.clone()

    @cached_property
    def _reference(self) -> torch.Tensor:
        front = self._centers if self.num_objectives == 2 else self._pareto_set(max(500, self.num_objectives))
        return 1.1 * self.evaluate(front).amax(dim=0)

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        offset = x.unsqueeze(-2) - self._centers.to(x)
        values: torch.Tensor = torch.einsum("...ki,kij,...kj->...k", offset, self._matrices.to(x), offset)
        return values / 2

    def minimizer(self, weights: torch.Tensor) -> torch.Tensor:
        """The minimiser (..., n) of sum w_i f_i, float64, for `weights` (..., K), non-negative and not all zero.

        Raises:
            ValueError: another shape, a negative weight or only zeros.
        """
        weights = torch.as_tensor(weights, dtype=torch.float64).detach().cpu()
        if weights.ndim == 0 or weights.shape[-1] != self.num_objectives:
            raise ValueError(f"weights must have shape (..., {self.num_objectives}), found {tuple(weights.shape)}")
        if not ((weights >= 0).all() and (weights.sum(dim=-1) > 0).all()):
            raise ValueError("weights must be non-negative and not all zero")
        curvature = torch.einsum("...k,kij->...ij", weights, self._matrices)
        pull = torch.einsum("...k,kij,kj->...i", weights, self._matrices, self._centers)
        minimizer: torch.Tensor = torch.linalg.solve(curvature, pull.unsqueeze(-1))
        return minimizer[..., 0]

    def _pareto_set(self, n: int) -> torch.Tensor:
        return self.minimizer(simplex_points(self.num_objectives, n))


@register_problem("quadratic_pair")
class QuadraticPair(Quadratics, ConvexFrontProblem):
    """`Quadratics` with K = 2: f_i = 1/2 (x - a_i)' A_i (x - a_i), whose hypervolume is known, too.

    Pareto set: x(w) = (w A_1 + (1-w) A_2)^-1 (w A_1 a_1 + (1-w) A_2 a_2), w in [0, 1]. Reference point: 1.1 (f1(a_2),
    f2(a_1)).

    Args: those of `Quadratics` without `num_objectives`.
    """

    def __init__(
        self,
        num_variables: int | None = None,
        *,
        condition: float = 10.0,
        seed: int = 0,
        matrices: Array | None = None,
        centers: Array | None = None,
    ) -> None:
        super().__init__(num_variables, 2, condition=condition, seed=seed, matrices=matrices, centers=centers)

    def _weighted_minimizer(self, weight: torch.Tensor) -> torch.Tensor:
        return self.minimizer(torch.stack((weight, 1 - weight), dim=-1))

    def _pareto_set(self, n: int) -> torch.Tensor:
        # Equal steps of the weight crowd where one matrix outweighs the other. So the weights of a grid are moved until
        # their images are evenly spread along the front, a few times since the first grid sees it only coarsely.
        weights = torch.linspace(1, 0, 257, dtype=torch.float64)
        for size in (257, 257, n):
            front = self.evaluate(self._weighted_minimizer(weights))
            steps = (front.diff(dim=0) / (front.amax(dim=0) - front.amin(dim=0))).norm(dim=1)
            lengths = np.concatenate(([0.0], steps.cumsum(dim=0).numpy()))
            evenly = np.interp(np.linspace(0, lengths[-1], size), lengths, weights.numpy())
            weights = torch.from_numpy(evenly)
        return self._weighted_minimizer(weights)


def _draw_matrix(n: int, condition: float, generator: torch.Generator) -> torch.Tensor:
    axes = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    eigenvalues = condition ** torch.linspace(0, 1, n, dtype=torch.float64)
    matrix = (axes * eigenvalues) @ axes.T
    return torch.add(matrix, matrix.T) / 2


def _checked_matrices(matrices: Array, k: int, n: int) -> torch.Tensor:
    checked = torch.as_tensor(matrices, dtype=torch.float64).detach().cpu().clone()
    if checked.shape != (k, n, n):
        raise ValueError(f"matrices must have shape ({k}, {n}, {n}), found {tuple(checked.shape)}")
    if not torch.allclose(checked, checked.mT, rtol=1e-12, atol=0):
        raise ValueError("matrices must be symmetric: pass (A + A') / 2, which has the same quadratic form")
    if (torch.linalg.cholesky_ex(checked).info != 0).any():
        raise ValueError("matrices must be positive definite: their Cholesky factorisation fails")
    return checked


def _checked_centers(centers: Array, k: int, n: int) -> torch.Tensor:
    checked = torch.as_tensor(centers, dtype=torch.float64).detach().cpu().clone()
    if checked.shape != (k, n):
        raise ValueError(f"centers must have shape ({k}, {n}), found {tuple(checked.shape)}")
    if not checked.isfinite().all():
        raise ValueError("centers must be finite, found NaN or inf")
    return checked
