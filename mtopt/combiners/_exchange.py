"""What a step tells a rule beside the evidence, and what the rule answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mtopt.linalg import Precision


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may know of the step that asks it.

    Attributes:
        objectives: which objective each row belongs to; empty outside a step.
        total: the number of objectives, those without a row in this step included.
        precision: how exactly the gradients and their inner products are known; None where a rule that looks at neither
            is asked, or outside a step.
    """

    objectives: tuple[int, ...] = ()
    total: int = 0
    precision: Precision | None = None


OUTSIDE = Context()
"""No step asks."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule made of one step's gradients: weights, or a direction when it works on coordinates, or both."""

    weights: torch.Tensor | None
    direction: torch.Tensor | None = None
