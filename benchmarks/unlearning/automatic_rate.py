"""The automatic rate of NGDiff, its parts one by one: ``NGDiff+GeN`` means the same in every command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

import mtopt

from .batches import EncodedRow, Sides, retain_batches

SMOOTHING, STARTUP = 0.9, 10
"""GeN's own: the weight of the old rate, and the accepted probes in a row that end its line search."""

FRESH_BATCHES = 64
"""The most batches of other rows that are made to probe on where no number is given; they are taken in turn."""


@dataclass(frozen=True)
class AutomaticRate:
    """:class:`mtopt.GeN` on the retain loss. The defaults are what is read in the paper of NGDiff (arXiv 2410.22086).

    Every ``every`` steps two more forward passes on the retain loss, at ``w + eta d`` and ``w - eta d``, give the
    parabola through ``eta = -1, 0, 1`` times the rate; the new rate is its lowest point, kept within half and twice the
    old one, as in the code of GeN's authors. ``docs/unlearning.md`` says which of these the paper is known to fix.

    Args:
        every: steps between two probes. The paper's.
        smoothing: weight of the old rate in the new one. Default: 0, the rate is replaced. ``smoothed`` in a name: 0.9,
            GeN's own.
        startup: for the line search that :class:`mtopt.GeN` can begin with; ``searched`` in a name: 10. Default: none.
        fresh: probe on other retained rows than the step's, as many of them, as the code of GeN's authors does.
            Default: the step's own batch, whose loss is at hand.
    """

    every: int = 10
    smoothing: float = 0.0
    startup: int = 0
    fresh: bool = False

    @property
    def suffix(self) -> str:
        """What differs from the paper's, for a name: ``""``, ``"(fresh)"``, ``"(fresh, smoothed, searched)"``."""
        parts = {"fresh": self.fresh, "smoothed": self.smoothing > 0, "searched": self.startup > 0}
        named = ", ".join(name for name, there in parts.items() if there)
        return f"({named})" if named else ""

    def probe_batches(
        self,
        retained: Sequence[EncodedRow],
        *,
        batch_size: int,
        pad_id: int,
        seed: int = 0,
        count: int | None = None,
    ) -> list[Sides] | None:
        """What to probe on, in batches of the step's size; None for the step's own batch.

        ``count`` is their number. Default: as many as the rows give, at most 64.
        """
        if not self.fresh:
            return None
        size = min(batch_size, len(retained))
        if count is None:
            count = min(FRESH_BATCHES, len(retained) // size)
        return retain_batches(retained, count=count, batch_size=size, pad_id=pad_id, seed=seed)

    def callback(self, optimizer: torch.optim.Optimizer, probe_batches: Sequence[Any] | None) -> mtopt.GeN:
        """The callback of a trainer with a loss named ``retain``.

        Raises:
            ValueError: ``fresh`` without batches to probe on.
        """
        if self.fresh and probe_batches is None:
            raise ValueError(
                "probe_batches is None, and this automatic rate is probed on other rows than the step's; give those of "
                "AutomaticRate.probe_batches"
            )
        return mtopt.GeN(
            optimizer,
            objective="retain",
            every=self.every,
            smoothing=self.smoothing,
            startup=self.startup,
            batches=probe_batches,
        )


VARIANTS = (
    AutomaticRate(),
    AutomaticRate(fresh=True),
    AutomaticRate(smoothing=SMOOTHING),
    AutomaticRate(fresh=True, smoothing=SMOOTHING),
    AutomaticRate(fresh=True, smoothing=SMOOTHING, startup=STARTUP),
)
"""The paper's reading first; the fourth is the algorithm of GeN's authors, the last :class:`mtopt.GeN` as it comes."""
