"""Numbers that a rule learns beside the model, one per objective, by a small optimizer of the rule's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from mtopt._content import check_alike, check_mapping
from mtopt._moments import check_moments
from mtopt.linalg import Array


class LearnedVector:
    """K numbers, float64 on the CPU, and the torch optimizer that moves them.

    The vector is made when the number of objectives is known, at the first call of :meth:`read`.

    Args:
        start: the value of each number before the first step.
        lr: learning rate.
        weight_decay: coefficient of the numbers themselves in their gradient.
        eps: Adam's. It has the unit of the gradient, so the default fits gradients without a unit only.
        optimizer: ``"adam"`` or ``"sgd"``.
    """

    def __init__(
        self,
        start: float,
        *,
        lr: float,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        optimizer: Literal["adam", "sgd"] = "adam",
    ) -> None:
        self._start, self._lr, self._weight_decay, self._eps = start, lr, weight_decay, eps
        self._kind = optimizer
        self._vector: torch.Tensor | None = None
        self._optimizer: torch.optim.Optimizer | None = None

    def __len__(self) -> int:
        """The number of objectives; 0 before the first call of :meth:`read`."""
        return 0 if self._vector is None else len(self._vector)

    def read(self, total: int) -> Array:
        """The numbers of all ``total`` objectives, as a copy."""
        if self._vector is None:
            self._place(torch.full((total,), self._start, dtype=torch.float64))
        assert self._vector is not None
        if len(self._vector) != total:
            raise ValueError(
                f"this rule has learned the weights of {len(self._vector)} objectives and is given {total}; "
                "create one rule for each problem"
            )
        return self._vector.numpy().copy()

    def write(self, values: Array) -> None:
        """Put ``values`` in place of the numbers; the optimizer goes on from there."""
        assert self._vector is not None
        self._vector.copy_(torch.from_numpy(values))

    def descend(self, gradient: Array, objectives: Sequence[int]) -> None:
        """One optimizer step for the numbers of ``objectives``; the others stay as they are."""
        assert self._vector is not None
        assert self._optimizer is not None
        if not objectives:
            return
        numbers = self._vector.numpy()  # the same memory
        slope = np.zeros_like(numbers)
        slope[list(objectives)] = gradient
        before = numbers.copy()
        self._vector.grad = torch.from_numpy(slope)
        self._optimizer.step()
        if len(objectives) < len(numbers):  # Adam's momentum has moved the others, too
            absent = np.ones(len(numbers), dtype=bool)
            absent[list(objectives)] = False
            numbers[absent] = before[absent]

    def _place(self, vector: torch.Tensor) -> None:
        self._vector = vector
        lr, decay = self._lr, self._weight_decay
        if self._kind == "adam":
            self._optimizer = torch.optim.Adam([vector], lr=lr, weight_decay=decay, eps=self._eps)
        else:
            self._optimizer = torch.optim.SGD([vector], lr=lr, weight_decay=decay)

    @property
    def state(self) -> dict[str, Any] | None:
        """The numbers and the optimizer's moments, as new plain tensors; None before the first step.

        The learning rate and the other settings are not in it: they are the rule's hyper-parameters.
        """
        if self._vector is None or self._optimizer is None:
            return None
        moments = self._optimizer.state_dict()["state"].get(0, {})
        return {
            "values": self._vector.clone(),
            "moments": {name: _copy(value) for name, value in moments.items()},
        }

    @state.setter
    def state(self, state: dict[str, Any] | None) -> None:
        if state is None:
            self._vector = self._optimizer = None
            return
        check_mapping(state, "learned weights", ("values", "moments"))
        check_alike(torch.zeros(0, dtype=torch.float64), state["values"], "learned weights")
        self._place(state["values"].to("cpu", torch.float64, copy=True))
        assert self._optimizer is not None
        found = self._optimizer.state_dict()["param_groups"]
        check_moments(self._optimizer, found[0], state["values"].shape, state["moments"], "learned weights, moments")
        moments = {name: _copy(value) for name, value in state["moments"].items()}
        self._optimizer.load_state_dict({"state": {0: moments} if moments else {}, "param_groups": found})


class LearnsWeights:
    """Mixin of a rule that owns a :class:`LearnedVector`: it saves and loads it with the rule's other state."""

    stateful: ClassVar[bool] = True
    state: ClassVar[tuple[str, ...]] = ("_learned",)

    _vector: LearnedVector

    @property
    def _learned(self) -> dict[str, Any] | None:
        return self._vector.state

    @_learned.setter
    def _learned(self, state: dict[str, Any] | None) -> None:
        self._vector.state = state


def check_lr(lr: float) -> None:
    """Raise ValueError unless the learning rate is positive."""
    if not lr > 0:
        raise ValueError(f"lr must be positive, found {lr}")


def _copy(value: Any) -> Any:
    return value.to("cpu", copy=True) if isinstance(value, torch.Tensor) else value
