"""Warnings while training: a loss that gets next to nothing of the steps, rounding blown up, steps that are skipped."""

from __future__ import annotations

import warnings

import torch

from mtopt._text import visible
from mtopt.autograd import StepRecord
from mtopt.diagnosis._rounding import is_rounding, unit_of

_SHARE = 2e-3  # of the equal share, which for two losses is half of the step
_LOUD = 1e-2  # the share of a step from which a gradient at rounding level does harm
_BLOWN_UP = 1e3  # the weight from which it was normalised, and not weighed among others


class StarvationWarning(UserWarning):
    """A loss gets next to nothing of what is trained, or noise in its place."""


class Watch:
    """Looks at each step's record, and warns once of each thing that goes wrong without an error.

    ::

        watch = mtopt.diagnosis.Watch()
        for batch in loader:
            watch.see(mtopt.backward(losses(batch), model, combiner))

    - A loss starves: its share of the step, ``|w_k| ||g_k||`` over the sum of these, is below 2e-3 / K (1e-3 for two
      losses) in ``steps`` steps in a row. Steps without norms or weights tell nothing and are passed over: a rule on
      losses has norms where they are measured (``measure_every=`` of the trainer).
    - A gradient at the level of rounding, as that of a divergence that is zero in the first step, makes up a hundredth
      of the step or more, by a weight above 1,000: a rule that normalises gradients follows its rounding.
    - ``skips`` steps in a row were skipped.

    The :class:`mtopt.MultiLossTrainer` has one of its own.

    Args:
        steps: steps in a row before a loss starves. Default: 100.
        skips: skipped steps in a row that are worth a warning. Default: 20.
        shares: whether to tell of losses that starve; False where some are to. Default: True.
        dtype: what gradients are computed in. Default: float32.
    """

    def __init__(
        self,
        *,
        steps: int = 100,
        skips: int = 20,
        shares: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if steps < 1 or skips < 1:
            raise ValueError(f"steps and skips must be positive, found {steps!r} and {skips!r}")
        self.steps, self.skips, self.shares = steps, skips, shares
        self.unit = unit_of(dtype)
        self.skipped = 0
        self._starving: dict[str, int] = {}
        self._told: set[str] = set()

    def see(self, record: StepRecord, *, stacklevel: int = 2) -> None:
        """Look at the record of one step; ``stacklevel`` is that of ``warnings.warn``."""
        if record.skipped:
            self.skipped += 1
            if self.skipped == self.skips:
                warnings.warn(
                    f"the last {self.skips} steps were all skipped, and nothing was trained in them; the last one for: "
                    f"{record.reason}",
                    stacklevel=stacklevel,
                )
            return
        self.skipped = 0
        if record.weights is None or record.norms is None or record.weights.keys() != record.norms.keys():
            return
        weights, norms = record.weights, record.norms
        sizes = {name: abs(weight) * norms[name] for name, weight in weights.items()}
        total = sum(sizes.values())
        if not 0 < total < float("inf"):
            return
        least, loud = total * _SHARE / len(sizes), total * _LOUD
        for name, size in sizes.items():
            if size < least:
                self._count_starved(name, record, least / total, stacklevel)
            elif name in self._starving:
                del self._starving[name]
            if size >= loud and abs(weights[name]) >= _BLOWN_UP:
                self._see_rounding(name, record, size / total, stacklevel)

    def _count_starved(self, name: str, record: StepRecord, least: float, stacklevel: int) -> None:
        assert record.weights is not None
        assert record.norms is not None
        count = self._starving[name] = self._starving.get(name, 0) + 1
        key = f"share {name}"
        if count < self.steps or key in self._told or not self.shares:
            return
        self._told.add(key)
        warnings.warn(
            f"loss {visible(name)!r} had less than {least:.2g} of each of the last {count} steps whose gradients were "
            f"seen (weight {record.weights[name]:.3g}, gradient norm {record.norms[name]:.3g}): it is not trained; "
            "give it more weight, or leave it out",
            StarvationWarning,
            stacklevel=stacklevel + 1,
        )

    def _see_rounding(self, name: str, record: StepRecord, share: float, stacklevel: int) -> None:
        assert record.weights is not None
        assert record.norms is not None
        norm, longest, key = record.norms[name], max(record.norms.values()), f"rounding {name}"
        if key in self._told or not is_rounding(norm, longest, record.losses[name], self.unit):
            return
        self._told.add(key)
        warnings.warn(
            f"the gradient of loss {visible(name)!r} has norm {norm:.3g} beside {longest:.3g}, no more than rounding, "
            f"and the rule's weight {record.weights[name]:.3g} makes it {share:.0%} of the step: start where this loss "
            "is not at its minimum, give None in its place until it is not, or take a rule that does not normalise",
            StarvationWarning,
            stacklevel=stacklevel + 1,
        )
