"""What the real-world problems share: a box, published ideal and nadir points, violations as an objective."""

from typing import ClassVar

import torch

from mtopt.problems._base import Problem


class RealWorldProblem(Problem):
    """A continuous problem of Tanabe and Ishibuchi, "An easy-to-use real-world multi-objective optimization problem
    suite", Applied Soft Computing 89, 2020. Their names REKi: K objectives, i-th of them. The older papers that the
    classes name are those the problems are credited to; docs/problems.md says what the formulas were taken from.

    `evaluate` is in the units of the paper, in which the objectives differ by many orders of magnitude. Divide by
    `nadir_point - ideal_point`, or use a rule that does not feel scales.

    Constraints are an objective: the sum of max(-g_i, 0) over g_i(x) >= 0. Its gradient is zero where all of them hold,
    and jumps where one begins to.

    The ideal and nadir points are those published with the suite, of fronts approximated by evolution; the reference
    point is ideal + 1.1 (nadir - ideal). Fronts are known in closed form for RE21 only; `pareto_front` of the others
    raises LookupError.
    """

    _lower: ClassVar[tuple[float, ...]]
    _upper: ClassVar[tuple[float, ...]]
    _ideal: ClassVar[tuple[float, ...]]
    _nadir: ClassVar[tuple[float, ...]]

    def __init__(self) -> None:
        self.num_variables = len(self._lower)
        self.num_objectives = len(self._ideal)

    @property
    def bounds(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(self._lower, dtype=torch.float64), torch.tensor(self._upper, dtype=torch.float64)

    @property
    def ideal_point(self) -> torch.Tensor:
        """The published best value of each objective, (K,)."""
        return torch.tensor(self._ideal, dtype=torch.float64)

    @property
    def nadir_point(self) -> torch.Tensor:
        """The published worst value of each objective on the front, (K,)."""
        return torch.tensor(self._nadir, dtype=torch.float64)

    @property
    def reference_point(self) -> torch.Tensor:
        ideal = self.ideal_point
        return ideal + 1.1 * (self.nadir_point - ideal)


def violation(*constraints: torch.Tensor) -> torch.Tensor:
    """The sum of max(-g, 0) over the constraints g >= 0."""
    return torch.stack(constraints, dim=-1).neg().relu().sum(dim=-1)
