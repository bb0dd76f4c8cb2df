"""The number that an automatic learning rate lowers: a loss, or a mix of named ones, averaged over the ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mtopt._errors import unknown_name
from mtopt._losses import Losses, read_losses, run_loss
from mtopt.distributed import Processes

Mix = str | Mapping[str, float] | None
"""One objective by name, factors of several by name, or None for the sum of all."""

Measured = float | torch.Tensor | Losses


@dataclass(frozen=True, slots=True)
class Merit:
    """A value, and the relative rounding error of the losses that it was made of."""

    value: float
    unit: float


def check_mix(objective: object) -> None:
    """Raise unless ``objective`` is a name, factors by name, or None."""
    if objective is None or isinstance(objective, str):
        return
    if not isinstance(objective, Mapping) or not objective:
        raise TypeError(
            "objective must be the name of a loss, a mapping from names to factors, or None for the sum of all losses, "
            f"found {objective!r}"
        )
    for name, factor in objective.items():
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not abs(factor) < float("inf"):
            raise ValueError(f"objective must give each loss a finite factor, found {factor!r} for {name!r}")


def merit_of(measured: Measured, objective: Mix, unit: float) -> Merit | None:
    """The merit of what a closure returned, each loss with the sign with which it is minimised; None if there is none.

    Losses that do not count are not run where they are callables.

    Args:
        unit: rounding error where the closure gives plain numbers.
    """
    if isinstance(measured, torch.Tensor | float | int):
        if objective is not None:
            raise ValueError(
                f"objective={objective!r} picks losses by name, and the closure returned a single value; return the "
                "losses as mtopt.backward takes them, or leave objective out"
            )
        return Merit(_number(measured), _unit_of(measured, unit))
    losses = measured.values() if isinstance(measured, Mapping) else measured
    if isinstance(losses, Iterable) and losses and all(loss is None for loss in losses):
        return None  # this batch, or this rank's, has none of them
    objectives, values = read_losses(measured)
    names = [each.name for each in objectives]
    factors = {objective: 1.0} if isinstance(objective, str) else objective or dict.fromkeys(names, 1.0)
    for name in factors:
        if name not in names:
            raise unknown_name("objective", name, names)
    total, error = 0.0, 0.0
    counted = False
    for each, loss in zip(objectives, values, strict=True):
        factor = factors.get(each.name, 0.0)
        if factor == 0.0:
            continue
        value = run_loss(loss)
        if value is None:
            continue
        total += factor * each.sign * _number(value)
        error = max(error, _unit_of(value, unit))
        counted = True
    return Merit(total, error) if counted else None


def averaged(merits: Sequence[Merit | None], processes: Processes) -> list[Merit | None]:
    """The mean of each merit over the ranks that have it, so that all of them decide alike."""
    if not processes.several:
        return list(merits)
    numbers: dict[int, float] = {}
    for place, merit in enumerate(merits):
        if merit is not None:
            numbers |= {2 * place: merit.value, 2 * place + 1: merit.unit}
    means = processes.means(numbers, 2 * len(merits))
    return [Merit(means[n], means[n + 1]) if n in means else None for n in range(0, 2 * len(merits), 2)]


def _number(value: torch.Tensor | float) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def _unit_of(value: torch.Tensor | float, unit: float) -> float:
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.finfo(value.dtype).eps
    return unit
