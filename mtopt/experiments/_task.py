"""What a suite declares: tasks, their budgets, and how one of them is trained and judged."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mtopt._losses import Objective
from mtopt.combiners import Combiner
from mtopt.experiments._contestant import Contestant
from mtopt.experiments._fingerprint import fingerprint
from mtopt.training import MultiLossTrainer

NOT_OF_RESULTS = frozenset(
    {
        *("budget", "quick_budget", "static_front", "start", "views"),
        *("title", "labels", "axis_labels", "position_labels"),
        *("front", "front_hypervolume", "landscape", "describe", "fingerprint"),
    }
)
"""What a task declares for the plan and the report alone."""

FIRST_RULES = ("linear", "mgda", "pcgrad", "moco", "ngdiff")


@dataclass(frozen=True, slots=True)
class Budget:
    """What every rule gets on a task, all alike.

    Attributes:
        steps: optimizer steps of one training.
        points: trainings that make one run: from different starts, and with different preferences for a rule that
            takes one. A run's points are judged together, as a front.
        trials: configurations (learning rate and the rule's own hyper-parameters) tried on the tuning seed.
        seeds: seeds that the best configuration is then run with; the tuning seed is not among them.
        evaluations: how often a training's values are taken, evenly over its steps, the last time at its end. All of
            them are the run's points: where one may stop at any of them, the training is judged by what it offers.
    """

    steps: int
    points: int = 1
    trials: int = 8
    seeds: int = 5
    evaluations: int = 1

    def __post_init__(self) -> None:
        for name in ("steps", "points", "trials", "seeds", "evaluations"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} of a Budget must be a positive int, found {value!r}")


class Task(ABC):
    """One multi-loss problem that rules are compared on. Subclass it, declare the attributes, define three methods.

    The same code then runs it: tuning on the validation split, the seeds, the store, the statistics and the report.

    Attributes:
        name: short, unique in its suite.
        title: one line for the report.
        objectives: what is compared, K of them.
        reference_point: (K,) in the objectives' own units; hypervolumes are measured from it.
        learning_rates: range of the search, logarithmic; the first trial is its geometric middle.
        budget, quick_budget: the default, and the one of ``--quick``.
        spread_preferences: the points of a run get different preferences, for rules that take one; otherwise they
            differ in their starts alone.
        splits_differ: False where the tuning seed has data of its own, so that nothing is selected on what the other
            seeds are judged by: values are then taken once, for both splits.
        static_front: draw the static weights that the baseline was chosen from as a line, where a run is one training
            and there are two objectives.
        views: pairs of names (objectives or further metrics) that paths over training are drawn in, the first on the
            x axis, for tasks with several evaluations. Default: the first two objectives.
        start: the landmark that every training starts from, which its path is drawn from. Default: paths begin at the
            first evaluation.
        axis_labels: of the names in ``views``. Default: the names.
        labels: axis labels with units, ``$...$`` a formula. Default: the objectives' names, which are text.
        position_labels: axis labels of the parameter plane, for tasks whose position can be drawn.
    """

    name: str
    title: str = ""
    objectives: tuple[Objective, ...]
    reference_point: tuple[float, ...]
    learning_rates: tuple[float, float] = (1e-4, 1e-1)
    budget: Budget
    quick_budget: Budget
    spread_preferences: bool = True
    splits_differ: bool = True
    static_front: bool = True
    views: tuple[tuple[str, str], ...] = ()
    start: str | None = None
    axis_labels: Mapping[str, str] = MappingProxyType({})
    labels: tuple[str, ...] = ()
    position_labels: tuple[str, str] = ("$x_1$", "$x_2$")

    @abstractmethod
    def trainer(
        self, combiner: Combiner, *, learning_rate: float, seed: int, point: int, points: int
    ) -> MultiLossTrainer:
        """A fresh trainer; everything random in it follows from ``seed`` and ``point``, the same for every rule.

        A run is ``points`` trainings (:attr:`Budget.points`), and ``point``, from 0 to ``points - 1``, is which of them
        this is: each has a start of its own. They are judged together, as a front; a rule that takes a preference comes
        with another one for each.

        Where a suite's contestants have options, these are further keyword arguments, each with a default.
        """

    @abstractmethod
    def values(self, trainer: MultiLossTrainer, split: str, *, seed: int) -> Mapping[str, float]:
        """Value of each objective on ``"validation"`` or ``"test"``, by name; further keys are extra metrics.

        ``seed`` is the run's. A task whose splits are the same for every seed may leave it out of its signature.
        """

    def data(self, split: str, *, seed: int) -> Any:
        """What ``fit`` iterates over for ``"train"``; None for problems without data."""
        return None

    def prepare(self, seed: int) -> None:  # noqa: B027  (most tasks have nothing to prepare)
        """Make and cache what every run with ``seed`` starts from; called once a seed, before any run of it."""

    def landmarks(self, trainer: MultiLossTrainer) -> Mapping[str, Mapping[str, float]]:
        """By name, points to compare with, as :meth:`values` gives them: a model trained otherwise, say."""
        return {}

    def front(self, points: int = 400) -> npt.NDArray[np.float64] | None:
        """(points, K) of the true Pareto front where it is known."""
        return None

    def front_hypervolume(self) -> float | None:
        """Hypervolume of the whole true front at the reference point, where it is known."""
        return None

    def position(self, trainer: MultiLossTrainer) -> Sequence[float] | None:
        """Where the training stands in the plane, for the trajectory figure of two-dimensional problems."""
        return None

    def landscape(self) -> dict[str, Any] | None:
        """What the trajectories are drawn on: ``x``, ``y`` (n,), ``z`` (n, n) and the ``pareto_set`` (m, 2)."""
        return None

    def fingerprint(self) -> str:
        """Names everything that a run's result depends on but the rule: part of the key that a finished run has.

        Default: a hash of every attribute as it resolves, of the object or its class, and of the code of the class and
        of what it uses of the user's own modules: functions, classes, constants. Left out are budgets, titles and
        labels, and names with a leading underscore: what is computed from the rest and kept.

        Raises:
            ValueError: an attribute has no value that outlives its process, such as an open file.
        """
        return fingerprint(self, Task, NOT_OF_RESULTS)

    def describe(self) -> dict[str, Any]:
        """What the report needs to know of the task, as plain values."""
        front = self.front()
        return {
            "name": self.name,
            "title": self.title or self.name,
            "objectives": [asdict(objective) for objective in self.objectives],
            "labels": list(self.labels or (objective.name for objective in self.objectives)),
            "reference_point": list(self.reference_point),
            "learning_rates": list(self.learning_rates),
            "front": None if front is None else np.asarray(front).tolist(),
            "front_hypervolume": self.front_hypervolume(),
            "landscape": self.landscape(),
            "position_labels": list(self.position_labels),
            "start": self.start,
            "views": [list(view) for view in self.views],
            "axis_labels": dict(self.axis_labels),
        }


@dataclass(frozen=True)
class Suite:
    """Tasks that are compared together.

    Attributes:
        name: short; the tasks' results are filed under it.
        tasks: the tasks.
        combiners: the rules, or names of contestants, that ``mtopt compare`` takes when none are named.
        about: one paragraph for the report.
        contestants: what can be named beside the registered rules; see :class:`Contestant`.
    """

    name: str
    tasks: tuple[Task, ...]
    combiners: tuple[str, ...] = FIRST_RULES
    about: str = ""
    contestants: tuple[Contestant, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not isinstance(self.about, str):
            raise ValueError(f"a suite needs texts for name and about, found {self.name!r} and {self.about!r}")
        known = [contestant.name for contestant in self.contestants]
        if len(set(known)) < len(known):
            raise ValueError(f"suite {self.name!r} needs contestants with distinct names, found {known}")
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"suite {self.name!r} needs tasks with distinct names, found {names}")
