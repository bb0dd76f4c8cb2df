"""What one step reports."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mtopt._text import visible
from mtopt._views import html_table, number_text
from mtopt.autograd._probe import Probe
from mtopt.solvers import Certificate

Vector = npt.NDArray[np.float64]

_SHOWN = 8  # losses that a record shows of itself


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

    def __repr__(self) -> str:
        told = [f"{visible(name)} {value:.4g}{self._of(name)}" for name, value in list(self.losses.items())[:_SHOWN]]
        told += [f"and {len(self.losses) - _SHOWN} more losses"] if len(self.losses) > _SHOWN else []
        return f"<StepRecord{'' if self.step is None else f' {self.step}'}: {', '.join(told)}{self._end()}>"

    def _repr_html_(self) -> str:
        sections = [section for section in (self.losses, self.weights, self.norms) if section is not None]
        names = list(dict.fromkeys(name for section in sections for name in section))
        between = list(self.norms or self.losses) if self.cosines is not None and len(self.cosines) <= _SHOWN else []
        rows = []
        for name in names:
            cells = [number_text((section or {}).get(name)) for section in (self.losses, self.weights, self.norms)]
            if self.cosines is not None and between:
                row = between.index(name) if name in between else None
                cells += ["" if row is None else f"{self.cosines[row, k]:+.2f}" for k in range(len(between))]
            rows.append((name, *cells))
        header = ("loss", "value", "weight", "gradient norm", *(f"cos {name}" for name in between))
        title = f"step{'' if self.step is None else f' {self.step}'}{self._end()}"
        return html_table(title, header, rows, note=self.plan)

    def _of(self, name: str) -> str:
        parts = [
            f"{what} {section[name]:.4g}"
            for what, section in (("weight", self.weights), ("norm", self.norms))
            if section is not None and name in section
        ]
        return f" ({', '.join(parts)})" if parts else ""

    def _end(self) -> str:
        """What comes last: a skip and its reason, or how many gradients conflict."""
        if self.skipped:
            return f"; skipped: {visible(self.reason or '')}"
        pairs = 0 if self.cosines is None else len(self.cosines) * (len(self.cosines) - 1) // 2
        return f"; {self.conflicts} of {pairs} pairs in conflict" if pairs else ""
