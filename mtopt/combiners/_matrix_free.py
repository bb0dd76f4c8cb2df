"""Rules whose weights are followed from step to step by products of the Gramian with a vector."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from mtopt._errors import CheckpointError, SolverError
from mtopt.combiners._base import Combiner
from mtopt.combiners._secant import SecantGramian
from mtopt.combiners._tracked import joined
from mtopt.linalg import Array
from mtopt.solvers import Certificate

METHOD = "matrix-free"


@dataclass(slots=True)
class Tracked:
    """Weights that are followed: those of the losses seen so far, in the order of their first appearance."""

    members: list[int] = field(default_factory=list)
    weights: Array = field(default_factory=lambda: np.zeros(0))
    model: SecantGramian = field(default_factory=SecantGramian)

    def saved(self) -> dict[str, Any]:
        return {
            "members": list(self.members),
            "weights": self.weights.tolist(),  # lists of numbers do not round
            "model": self.model.saved(),
        }

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Tracked:
        missing = [key for key in ("members", "weights", "model") if key not in saved]
        if missing:
            raise CheckpointError(f"the followed weights in state_dict lack {', '.join(missing)}: it is truncated")
        model = SecantGramian.of(saved["model"])
        return cls(list(saved["members"]), np.array(saved["weights"], dtype=np.float64), model)


@runtime_checkable
class Following(Protocol):
    """What an engine asks of a rule with ``matrix_free = True``: see :class:`FollowsWeights`."""

    def weights_to_follow(self, objectives: Sequence[int]) -> torch.Tensor: ...

    def follow(
        self, objectives: Sequence[int], products: Array, squared_length: float, *, rate: float = 0.2
    ) -> tuple[float, float]: ...

    def lengthening(self, objectives: Sequence[int], squared_length: float) -> float: ...


class FollowsWeights(Combiner):
    """A rule that can go without the Gramian: it keeps weights w, and moves them by one product ``G w`` a step.

    The mixin keeps a model of the Gramian (:class:`SecantGramian`) that agrees with the products seen, solves the
    rule's own program with the model, and goes a share ``rate`` of the way there. Weights that no longer move solve the
    program with G itself, since the model agrees with G along w. On mini-batches the model is made of many of them.

    An engine asks :meth:`weights_to_follow`, makes the direction and the product with them, and calls :meth:`follow`;
    or, for a step that is to leave the weights as they are, only :meth:`lengthening`.
    ``state_dict`` holds the weights once there are any. A loss that is absent from a step keeps its weight.

    A subclass defines ``_solution`` and ``_error``; the other methods are those of weights on the simplex.
    """

    matrix_free: ClassVar[bool] = True

    _tracked_weights: Tracked | None = None

    def weights_to_follow(self, objectives: Sequence[int]) -> torch.Tensor:
        """The weights (K,) of the losses of ``objectives`` to make the next product with; only ratios count."""
        _, weights, positions = self._grown(objectives)
        return torch.from_numpy(self._used(weights[positions]))

    def follow(
        self, objectives: Sequence[int], products: Array, squared_length: float, *, rate: float = 0.2
    ) -> tuple[float, float]:
        """Move the weights by one product.

        Args:
            objectives: of the rows.
            products: (K,), the Gramian times what :meth:`weights_to_follow` gave. Where one is not finite the weights
                stay as they are, and the error is infinite.
            squared_length: ``||J' weights||²`` for these weights.
            rate: the share of the way to the solution of the model, in (0, 1].

        Returns:
            What to multiply the direction ``J' weights`` with for the rule's own length; and how far the weights are
            from exact ones, without a unit, as ``certificate`` says, too.
        """
        members, weights, positions = self._grown(objectives)
        used = self._used(weights[positions])
        live = self._live(products)
        factor = self._factor(used[live], squared_length) if squared_length > 0.0 else 1.0
        scaled, slopes = used[live] * factor, products[live] * factor
        finite = bool(np.isfinite(slopes).all()) and math.isfinite(factor)
        error = self._error(scaled, slopes) if finite else math.inf
        self.certificate = Certificate(error, None, METHOD)
        if finite and float(scaled @ slopes) > 0.0:  # else noise, or a stationary point: nothing to move towards
            tracked = self._tracked_weights or Tracked()
            tracked.members, tracked.weights = members, weights
            places = [place for place, is_live in zip(positions, live, strict=True) if is_live]
            moved = self._moved(tracked, places, scaled, slopes, rate)
            tracked.weights[places] = self._kept(weights[places], moved)
            self._tracked_weights = tracked
        return factor * self._shortening(factor * math.sqrt(squared_length)), error

    def lengthening(self, objectives: Sequence[int], squared_length: float) -> float:
        """What to multiply a direction made with :meth:`weights_to_follow` with for the rule's own length.

        Args:
            objectives: of the rows.
            squared_length: of the direction.
        """
        weights = self.weights_to_follow(objectives).numpy()
        factor = self._factor(weights, squared_length) if squared_length > 0.0 else 1.0
        return factor * self._shortening(factor * math.sqrt(squared_length))

    def _grown(self, objectives: Sequence[int]) -> tuple[list[int], Array, list[int]]:
        """All members with those of this step, their weights as a copy, and where this step's are."""
        tracked = self._tracked_weights or Tracked()
        members, positions = joined(tracked.members, objectives)
        return members, self._with_new(tracked.weights, len(members) - len(tracked.members)), positions

    def _moved(self, tracked: Tracked, positions: list[int], weights: Array, products: Array, rate: float) -> Array:
        """``weights`` a share ``rate`` of the way to the solution of the model, which learns of the product first."""
        tracked.model.learn(len(tracked.members), positions, weights, products)
        try:
            solution = self._solution(tracked.model.block(positions))
        except SolverError:  # a model that rounding has spoilt: a new one, of this product alone
            tracked.model = SecantGramian()
            tracked.model.learn(len(tracked.members), positions, weights, products)
            solution = self._solution(tracked.model.block(positions))
        return self._mixed(weights, solution, rate)

    # -- what a rule says ---------------------------------------------------------------------------------------

    @abstractmethod
    def _solution(self, gramian: Array) -> Array:
        """The rule's exact weights for a Gramian."""

    @abstractmethod
    def _error(self, weights: Array, products: Array) -> float:
        """How far ``weights`` are from exact ones, by ``products = G weights`` alone."""

    def _live(self, products: Array) -> npt.NDArray[np.bool_]:
        """Which of the rows the program is about."""
        return np.ones(len(products), dtype=bool)

    def _with_new(self, weights: Array, new: int) -> Array:
        """``weights`` and those of ``new`` losses, as a new array: ``1 / K`` each, the old ones shrink alike."""
        total = len(weights) + new
        return np.concatenate([weights * (len(weights) / max(total, 1)), np.full(new, 1.0 / max(total, 1))])

    def _used(self, weights: Array) -> Array:
        """The weights for a step, of what is kept for its losses: those that are there share the whole."""
        total = weights.sum()
        return np.asarray(weights / total) if total > 0.0 else np.full(len(weights), 1.0 / len(weights))

    def _kept(self, before: Array, moved: Array) -> Array:
        """What to keep of ``moved`` weights in place of ``before``."""
        return np.asarray(moved * before.sum())

    def _mixed(self, weights: Array, solution: Array, rate: float) -> Array:
        return np.asarray(weights + rate * (solution - weights))

    def _factor(self, weights: Array, squared_length: float) -> float:
        """What gives weights, of which only the ratios are known, the rule's scale."""
        return 1.0

    def _shortening(self, length: float) -> float:
        """What to multiply a direction of this length with in the end."""
        return 1.0

    # -- state --------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; with the followed weights where there are any."""
        found = super().state_dict()
        return found if self._tracked_weights is None else {**found, "followed": self._tracked_weights.saved()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a rule of the same class, and the weights that it followed, if any."""
        super().load_state_dict(state_dict)
        saved = state_dict.get("followed")
        self._tracked_weights = None if saved is None else Tracked.of(saved)
