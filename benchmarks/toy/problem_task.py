"""A task on any of mtopt's problems: minimise its objectives from several starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import mtopt
from mtopt.experiments import Budget, Task


class Point(torch.nn.Module):
    """The variables of a problem as a model of one parameter."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(start.clone())


class ProblemTrainer(mtopt.MultiLossTrainer):
    """Descends on a problem's objectives and stays in its box."""

    def __init__(
        self, problem: mtopt.problems.Problem, start: torch.Tensor, combiner: mtopt.Combiner, *, learning_rate: float
    ) -> None:
        model = Point(start)
        super().__init__(model, torch.optim.Adam(model.parameters(), lr=learning_rate), combiner)
        self.problem = problem
        self.point = model

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        return {f"f{k}": value for k, value in enumerate(self.problem.evaluate(self.point.x), start=1)}

    def after_step(self) -> None:
        with torch.no_grad():
            self.point.x.copy_(self.problem.project(self.point.x))


class ProblemTask(Task):
    """One problem of ``mtopt.problems``.

    Args:
        problem: its registry name; the task's name, too.
        title: for the report.
        learning_rates: of Adam, the range of the search.
        from_published_starts: start from the problem's published points; default: from points drawn with the seed.
        budget, quick_budget: see :class:`mtopt.experiments.Budget`.
        options: the problem's keyword arguments.
    """

    def __init__(
        self,
        problem: str,
        *,
        title: str,
        learning_rates: tuple[float, float],
        budget: Budget,
        quick_budget: Budget,
        from_published_starts: bool = False,
        **options: Any,
    ) -> None:
        self.name = problem
        self.title = title
        self.problem = mtopt.problems.create_problem(problem, **options)
        self.options = options
        self.learning_rates = learning_rates
        self.from_published_starts = from_published_starts
        self.spread_preferences = not from_published_starts
        self.budget, self.quick_budget = budget, quick_budget
        self.objectives = tuple(mtopt.Objective(f"f{k + 1}") for k in range(self.problem.num_objectives))
        self.labels = tuple(f"$f_{k + 1}$" for k in range(self.problem.num_objectives))
        self.reference_point = tuple(self.problem.reference_point.tolist())

    def trainer(
        self, combiner: mtopt.Combiner, *, learning_rate: float, seed: int, point: int, points: int
    ) -> ProblemTrainer:
        starts = self.problem.starts if self.from_published_starts else self.problem.sample_starts(points, seed=seed)
        assert starts is not None
        return ProblemTrainer(self.problem, starts[point], combiner, learning_rate=learning_rate)

    def values(self, trainer: mtopt.MultiLossTrainer, split: str, *, seed: int) -> Mapping[str, float]:
        assert isinstance(trainer, ProblemTrainer)
        values = self.problem.evaluate(trainer.point.x).detach()
        return {
            **{f"f{k}": float(value) for k, value in enumerate(values, start=1)},
            "distance to the front": float(mtopt.pareto.gd(values[None], self._dense_front)),
        }

    @cached_property
    def _dense_front(self) -> torch.Tensor:
        return self.problem.pareto_front(1000)

    def front(self, points: int = 400) -> npt.NDArray[np.float64]:
        return self.problem.pareto_front(points).numpy()

    def front_hypervolume(self) -> float | None:
        return self.problem.hypervolume

    def position(self, trainer: mtopt.MultiLossTrainer) -> Sequence[float] | None:
        if self.problem.num_variables != 2:
            return None
        assert isinstance(trainer, ProblemTrainer)
        return trainer.point.x.tolist()

    def landscape(self) -> dict[str, Any] | None:
        """The sum of the objectives on a grid around the starts and the Pareto set."""
        if self.problem.num_variables != 2:
            return None
        pareto_set = self.problem.pareto_set(100)
        lower, upper = self.problem.start_region
        everything = torch.cat([pareto_set, torch.stack([lower, upper])])
        low, high = everything.min(0).values, everything.max(0).values
        margin = 0.08 * (high - low)
        x, y = (
            torch.linspace(float(a), float(b), 80).double() for a, b in zip(low - margin, high + margin, strict=True)
        )
        grid = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1)
        return {
            "x": x.tolist(),
            "y": y.tolist(),
            "z": self.problem.evaluate(grid).sum(-1).numpy().round(5).tolist(),
            "pareto_set": pareto_set.tolist(),
        }

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {self.options}"
