"""What is known of a step before its gradients, and the parameters that the same losses reach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from mtopt._errors import NonFiniteError
from mtopt.autograd._keeping import Laid
from mtopt.autograd._objective import Objective
from mtopt.autograd._record import StepRecord
from mtopt.autograd._request import Request
from mtopt.linalg import Place

Private = Literal["own", "weighted", "combined"]

Reach = tuple[int, ...]
"""The losses that reach a parameter, as positions among those present."""


@dataclass(slots=True)
class Step:
    """What is known of a step before its gradients.

    Attributes:
        objectives: all K of them.
        present: positions in ``objectives`` of the losses that this step has.
        values: their values as the user knows them.
        private: what a parameter gets that a single loss reaches: its own gradient, that times the loss's weight, or a
            place in the rule's rows.
        trunk: ids of parameters that are shared whatever reaches them in this step; None when nobody said.
        scale: a GradScaler's factor, which the rows carry and ``.grad`` keeps; 1 without one.
        scaled: there is a GradScaler, which must see it when a step is skipped.
        strict: raise on a NaN or infinite row instead of skipping the step.
        plan: how the rows were made.
        places: the parameters.
        factors: what each row is to be multiplied with, where rows are kept in another form; None for one each.
        laid: which of the rows' tensors lie in a matrix; None where none do.
    """

    objectives: Sequence[Objective]
    present: Sequence[int]
    values: Sequence[float]
    private: Private
    trunk: set[int] | None
    scale: float
    scaled: bool
    strict: bool
    plan: str
    places: Sequence[Place]
    factors: Sequence[float] | None = None
    laid: Laid | None = None

    @classmethod
    def outline(cls, request: Request, *, private: Private, trunk: set[int] | None) -> Step:
        """The step of losses that have not been run: without values."""
        return cls(
            objectives=request.objectives,
            present=request.present,
            values=(),
            private=private,
            trunk=trunk,
            scale=request.scale,
            scaled=request.scaled,
            strict=False,
            plan="",
            places=request.places,
        )

    @classmethod
    def of(cls, request: Request, *, private: Private, trunk: set[int] | None, strict: bool, plan: str) -> Step:
        """The step of losses that have all been run."""
        step = cls.outline(request, private=private, trunk=trunk)
        step.values, step.strict, step.plan = request.values(), strict, plan
        return step

    def with_plan(self, plan: str) -> Step:
        return replace(self, plan=plan)

    @property
    def names(self) -> list[str]:
        return [self.objectives[k].name for k in self.present]

    @property
    def losses(self) -> dict[str, float]:
        """The values by name."""
        return dict(zip(self.names, self.values, strict=True))

    @property
    def minimised(self) -> torch.Tensor:
        """The values with the sign that the rule sees: (K,), float64 on the CPU."""
        signed = [self.objectives[k].sign * value for k, value in zip(self.present, self.values, strict=True)]
        return torch.tensor(signed, dtype=torch.float64)

    def skip(self, reason: str, *, backwards: int) -> StepRecord:
        """The record of a skipped step, or the error in strict mode."""
        if self.strict:
            raise NonFiniteError(f"{reason}; lower the learning rate, or leave strict=False to skip such steps")
        return StepRecord(losses=self.losses, skipped=True, reason=reason, plan=self.plan, backwards=backwards)


@dataclass(slots=True)
class Group:
    """Parameters that the same losses reach."""

    reach: Reach
    shared: bool  # the rule is applied to it
    indices: list[int] = field(default_factory=list)
