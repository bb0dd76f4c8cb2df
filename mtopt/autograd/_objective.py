"""Objectives: a name and a sense, and the losses of one step read against them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

LossValue = torch.Tensor | Callable[[], torch.Tensor] | None
# a mapping's type does not vary with that of its keys: each kind of keys is named
Losses = (
    torch.Tensor
    | Sequence[LossValue]
    | Mapping[str, LossValue]
    | Mapping["Objective", LossValue]
    | Mapping["str | Objective", LossValue]
)


@dataclass(frozen=True, slots=True)
class Objective:
    """One of the K objectives.

    Every rule minimises. ``sense="max"`` flips the sign of the objective's loss before the rule sees it, here and
    nowhere else; records and figures show the value as the user knows it.
    """

    name: str
    sense: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"the name of an objective must be a string, found {self.name!r}")
        if self.sense not in ("min", "max"):
            raise ValueError(f"sense of objective {self.name!r} must be 'min' or 'max', found {self.sense!r}")

    @property
    def sign(self) -> float:
        """What turns the objective's value into a loss to minimise: 1 or -1."""
        return 1.0 if self.sense == "min" else -1.0


ABSENT: Any = object()
"""What a callable returns, in place of a loss, that was made of one whose loss may turn out to be absent. (None is what
a function returns that lacks its return.)"""


class NoLossError(ValueError):
    """All the losses are absent."""


def read_losses(losses: Losses, *, some: bool = True) -> tuple[list[Objective], list[LossValue]]:
    """The objectives of ``losses`` in order, and their values; ``some`` of them must be there.

    A sequence, or a tensor (K,), names its losses ``loss_0``, ``loss_1``, ...; a mapping's keys are names or
    :class:`Objective`.
    """
    if isinstance(losses, torch.Tensor) and losses.ndim == 1:
        losses = list(losses)
    if isinstance(losses, Mapping):
        objectives = [key if isinstance(key, Objective) else Objective(key) for key in losses]
        values = list(losses.values())
        if len({objective.name for objective in objectives}) < len(objectives):
            raise ValueError(f"losses must have distinct names, found {[o.name for o in objectives]}")
    elif isinstance(losses, Sequence):
        objectives = list(_numbered(len(losses)))
        values = list(losses)
    else:
        hint = ""
        if isinstance(losses, torch.Tensor):
            hint = f" of shape {tuple(losses.shape)}; give one of shape (K,), or [loss] for a single one"
        raise TypeError(
            f"losses must be a sequence or a mapping of scalar tensors, found {type(losses).__name__}{hint}"
        )
    for objective, value in zip(objectives, values, strict=True):
        if not (isinstance(value, torch.Tensor) or value is None or callable(value)):
            raise TypeError(
                f"loss {objective.name!r} must be a scalar tensor, a callable that returns one, or None, "
                f"found {type(value).__name__}"
            )
    if some and all(value is None for value in values):
        raise NoLossError(f"losses holds no loss: {[o.name for o in objectives] or 'it is empty'}; skip this batch")
    return objectives, values


@functools.cache
def _numbered(count: int) -> tuple[Objective, ...]:
    return tuple([Objective(f"loss_{k}") for k in range(count)])


def value_of(loss: LossValue) -> torch.Tensor | None:
    """The loss itself, run if it is a callable; None where it is absent."""
    if loss is None or isinstance(loss, torch.Tensor):
        return loss
    found = loss()
    if found is None:
        raise TypeError("a loss given as a callable must return a scalar tensor, found None; is its return missing?")
    return None if found is ABSENT else found


def values_of(losses: Losses) -> Iterator[tuple[int, Objective, torch.Tensor]]:
    """The losses that are there, each with its position and objective, run one after the other."""
    for k, (objective, loss) in enumerate(zip(*read_losses(losses, some=False), strict=True)):
        value = value_of(loss)
        if value is not None:
            yield k, objective, value


def check_loss(name: str, loss: object, *, graph: bool = True) -> torch.Tensor:
    """``loss`` itself, once it is a scalar, with a graph behind it where one is wanted."""
    if not isinstance(loss, torch.Tensor):
        raise TypeError(f"loss {name!r} must be a scalar tensor, found {type(loss).__name__}")
    if loss.numel() != 1:
        raise ValueError(
            f"loss {name!r} must be a scalar, found shape {tuple(loss.shape)}; reduce it, e.g. with .mean()"
        )
    if graph and not loss.requires_grad:
        raise ValueError(
            f"loss {name!r} has no graph: nothing it was computed from requires gradients (or it was computed under "
            "torch.no_grad, or detached); compute it from the parameters, or give None where it is absent from this "
            "batch, which a constant such as torch.zeros(()) does not say"
        )
    return loss
