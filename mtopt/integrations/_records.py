"""What a step's record becomes in the log of another library, and what a rule is shown after the step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mtopt._losses import Losses, Objective, run_losses
from mtopt._replay import Generators, second_look
from mtopt.autograd import StepRecord
from mtopt.combiners import Combiner
from mtopt.distributed import ALONE, Processes, processes_of


def returned(losses: Losses, owner: object, method: str) -> Losses:
    """What a user's method returned, unless it is one loss, or none, and not several."""
    if losses is None or isinstance(losses, torch.Tensor):
        raise TypeError(
            f"{type(owner).__name__}.{method} must return a mapping from names to losses, found "
            f"{type(losses).__name__}; return {{'first': ..., 'second': ...}}"
        )
    return losses


def numbers_of(record: StepRecord) -> dict[str, float]:
    """A record as flat numbers: ``loss_retain``, ``weight_retain``, ``norm_retain``, ``cosine_retain_forget``, ..."""
    numbers = {f"loss_{name}": value for name, value in record.losses.items()}
    numbers["skipped"] = float(record.skipped)
    for kind, values in (("weight", record.weights), ("norm", record.norms)):
        numbers.update({f"{kind}_{name}": value for name, value in (values or {}).items()})
    if record.cosines is not None and record.norms is not None:
        names = list(record.norms)
        for i, first in enumerate(names):
            for j, second in enumerate(names[:i]):
                numbers[f"cosine_{second}_{first}"] = float(record.cosines[i, j])
        numbers["conflicts"] = float(record.conflicts or 0)
    return numbers


class Means:
    """Weighted means of named numbers; one that some of the entries lack is averaged over the others."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}

    def add(self, numbers: Mapping[str, float], weight: float = 1.0) -> None:
        """Take one entry in."""
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + weight * value
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def take(self, processes: Processes = ALONE) -> dict[str, float]:
        """The means so far, over the entries of all processes; then start anew."""
        of_all = processes.gather((self._sums, self._weights))
        self._sums, self._weights = {}, {}
        names = dict.fromkeys(name for sums, _ in of_all for name in sums)
        return {
            name: sum(sums.get(name, 0.0) for sums, _ in of_all) / sum(weights.get(name, 0.0) for _, weights in of_all)
            for name in names
        }


def values_of(losses: Losses) -> tuple[dict[str, float], float]:
    """The value of each loss that is present, run if it is a callable, and the sum of what is minimised."""
    values = {objective: float(value.detach()) for _, objective, value in run_losses(losses)}
    return {o.name: value for o, value in values.items()}, sum(o.sign * value for o, value in values.items())


def total_of(record: StepRecord, losses: object) -> float:
    """The sum of what is minimised in a step: the record's losses, those to maximise with their sign flipped."""
    keys = losses if isinstance(losses, Mapping) else ()
    signs = {key.name: key.sign for key in keys if isinstance(key, Objective)}
    return sum(signs.get(name, 1.0) * value for name, value in record.losses.items())


@dataclass(frozen=True, slots=True)
class Seen:
    """A micro-batch that is looked at again after the step.

    Attributes:
        batch: what the losses are computed from.
        share: the factor on its losses.
        generators: as they were before its forward.
    """

    batch: Any
    share: float
    generators: Generators


def reevaluate(
    combiner: Combiner,
    seen: Sequence[Seen],
    losses_of: Callable[[Any], Losses],
    *owners: object,
    needs_graph: bool,
) -> None:
    """Show a rule the losses of the same micro-batches after the optimizer's step; the owners' buffers stay. Of several
    ranks it sees the means.

    Call it only where ``combiner.awaits_losses``.
    """
    sums: dict[int, float] = {}
    count = 0
    with processes_of() as processes:
        for one in seen:
            with second_look(*owners, generators=one.generators, needs_graph=needs_graph, told="the module"):
                losses = losses_of(one.batch)
                count = len(losses)
                for k, objective, value in run_losses(losses):
                    sums[k] = sums.get(k, 0.0) + one.share * objective.sign * float(value.detach())
        means = processes.means(sums, count)
    present = sorted(means)
    combiner.reevaluate(torch.tensor([means[k] for k in present], dtype=torch.float64), present)
