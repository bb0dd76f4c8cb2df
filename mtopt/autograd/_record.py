"""What one step reports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtopt.autograd._probe import Probe
from mtopt.solvers import Certificate

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One step: named losses, what the rule made of them, and how the gradients stood to each other.

    Attributes:
        losses: value of each loss that was present, in the user's sense (a maximised objective is not flipped).
        weights: the rule's weight for each of them; None for a rule without weights, and for a skipped step.
        norms: norm of each loss's gradient over the shared parameters; None when only losses were needed.
        cosines: (K, K) cosines between these gradients, in the order of ``norms``; a zero gradient has cosine 0.
        certificate: how well the rule's program was solved, if it solves one.
        skipped: a loss or a gradient was NaN or infinite: ``.grad`` and the rule's state were left as they were.
        reason: why the step was skipped.
        plan: how the gradients were made, and why so.
        backwards: backward passes that were run.
        step, epoch, learning_rate: filled in by the trainer.
        probe: what an automatic learning rate found, in the steps in which it looked (:class:`mtopt.GeN`).
    """

    losses: dict[str, float]
    weights: dict[str, float] | None = None
    norms: dict[str, float] | None = None
    cosines: Vector | None = None
    certificate: Certificate | None = None
    skipped: bool = False
    reason: str | None = None
    plan: str = ""
    backwards: int = 0
    step: int | None = None
    epoch: int | None = None
    learning_rate: float | None = None
    probe: Probe | None = None

    @property
    def conflicts(self) -> int | None:
        """The number of pairs of gradients at an obtuse angle; None when only losses were needed."""
        if self.cosines is None:
            return None
        return int((self.cosines < 0).sum()) // 2  # symmetric, and no gradient conflicts with itself
