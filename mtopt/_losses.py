"""The losses of a step: objectives, each a name and a sense, what was given for them, and which of them are absent."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, Protocol

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


def run_loss(loss: LossValue) -> torch.Tensor | None:
    """The loss itself, run if it is a callable; None where it is absent."""
    if loss is None or isinstance(loss, torch.Tensor):
        return loss
    found = loss()
    if found is None:
        raise TypeError("a loss given as a callable must return a scalar tensor, found None; is its return missing?")
    return None if found is ABSENT else found


def run_losses(losses: Losses) -> Iterator[tuple[int, Objective, torch.Tensor]]:
    """The losses that are there, each with its position and objective, run one after the other."""
    for k, (objective, loss) in enumerate(zip(*read_losses(losses, some=False), strict=True)):
        value = run_loss(loss)
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


Absent = Literal["nan"] | None
"""What is absent besides None: nothing, or a loss whose value is NaN."""


def check_absent(absent: object) -> None:
    """Raise for a word that ``absent`` does not know."""
    if absent not in (None, "nan"):
        raise ValueError(f"absent must be 'nan' or None, found {absent!r}")


def without_nan(losses: Any) -> Any:
    """``losses`` with None in place of those whose value is NaN; what is callable stays so, and does it when it is run.

    What is no collection of losses is handed back as it is, for the error of those who read it.
    """
    if callable(losses):
        return lambda: without_nan(losses())
    if not isinstance(losses, torch.Tensor | Mapping | Sequence) or isinstance(losses, str):
        return losses
    objectives, values = read_losses(losses, some=False)
    tensors = [value.detach().reshape(-1) for value in values if isinstance(value, torch.Tensor)]
    bad = _are_nan(tensors)
    found: list[LossValue] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(None if bad.pop(0) else value)
        else:
            found.append(_or_absent(value) if callable(value) else value)
    return dict(zip(objectives, found, strict=True)) if isinstance(losses, Mapping) else found


def _are_nan(tensors: Sequence[torch.Tensor]) -> list[bool]:
    """Which of them are one NaN: one transfer from a device, however many there are."""
    if any(tensor.numel() != 1 for tensor in tensors) or len({tensor.device for tensor in tensors}) != 1:
        return [tensor.numel() == 1 and bool(tensor.isnan()) for tensor in tensors]
    found: list[bool] = torch.cat([tensor.double() for tensor in tensors]).isnan().tolist()
    return found


def _or_absent(loss: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        found = loss()
        return ABSENT if isinstance(found, torch.Tensor) and _are_nan([found.detach().reshape(-1)])[0] else found

    return run


class Sharing(Protocol):
    """What losses ask of the processes that each have a part of the mini-batch."""

    @property
    def several(self) -> bool: ...

    @property
    def shards(self) -> object | None: ...

    def note(self, what: str, value: object) -> None: ...

    def count(self, flags: Sequence[bool]) -> list[int]: ...

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]: ...


class Batch:
    """The losses of one mini-batch: which are there, each checked, signed and scaled when it is used.

    Of a loss that is a callable it is known only once it was run that it is there: then ``present`` may get shorter.

    Of several processes each has a part of the mini-batch, and a loss is the mean over those that have it: it is
    present where one of them has it, the others differentiate a constant, and each is divided by their number, so that
    gradients need only be summed.
    """

    def __init__(
        self,
        losses: Losses | Callable[[], Losses],
        scale: float,
        *,
        retain_graph: bool = False,
        processes: Sharing | None = None,
        graph: bool = True,
    ) -> None:
        self.processes = processes if processes is not None and processes.several else None
        given = losses() if callable(losses) else losses
        self.objectives, self.given = read_losses(given, some=self.processes is None)  # of all, present or not
        self.scale, self.retain_graph, self.graph = scale, retain_graph, graph
        self.present = [k for k, loss in enumerate(self.given) if loss is not None]
        self.all_tensors = all(isinstance(self.given[k], torch.Tensor) for k in self.present)
        self.here = self.present  # in this process
        self.holders: dict[int, int] = {}  # of each loss, where it is not one
        self._found: dict[int, torch.Tensor] = {}
        self._numbers: list[float] | None = None
        if self.processes is not None:
            self._agree(self.processes)

    def _agree(self, processes: Sharing) -> None:
        """Learn what the other processes have."""
        processes.note("the losses", [(each.name, each.sense) for each in self.objectives])
        flags = [loss is not None for loss in self.given] + [callable(loss) for loss in self.given]
        if processes.shards is not None:  # all take part in the reduction of every gradient
            there = [each.name for each, flag in zip(self.objectives, flags, strict=False) if flag]
            processes.note("which losses are there (not None), under fully_shard", there)
        counts = processes.count(flags)
        total = len(self.given)
        self.holders = dict(enumerate(counts[:total]))
        self._runs = {k for k in range(total) if counts[total + k]}  # there or not, as it turns out when they are run
        self.present = [k for k in range(total) if counts[k]]
        self.all_tensors = not self._runs
        if not self.present:
            raise self._nothing()
        for k in self.present:
            if self.given[k] is None:
                self.given[k] = self._constant()

    def _constant(self) -> torch.Tensor:
        """Stands for a loss that another process has: it reaches nothing."""
        like = next((loss for loss in self.given if isinstance(loss, torch.Tensor)), torch.zeros(()))
        return torch.zeros((), dtype=like.dtype, device=like.device, requires_grad=True)

    def _nothing(self) -> NoLossError:
        return NoLossError(f"losses holds no loss: {[o.name for o in self.objectives]}; skip this batch")

    @classmethod
    def of_values(cls, objectives: Sequence[Objective], present: Sequence[int], values: Sequence[float]) -> Batch:
        """Losses that have been differentiated already, of which the numbers are left."""
        batch = cls.__new__(cls)
        batch.objectives, batch.given, batch.present = list(objectives), [], list(present)
        batch.scale, batch.retain_graph, batch.all_tensors, batch.graph = 1.0, False, False, True
        batch.processes, batch.holders, batch.here = None, {}, batch.present
        batch._found, batch._numbers = {}, list(values)
        return batch

    @property
    def names(self) -> list[str]:
        """Those of the losses present."""
        return [self.objectives[k].name for k in self.present]

    def run(self, k: int) -> torch.Tensor | None:
        """Loss ``k``, run if it is a callable: the value is kept, what is returned is signed and scaled.

        None, and no longer among those present, where it turns out to be absent.
        """
        given = self.given[k]
        found = given() if callable(given) else given
        if self.processes is not None and k in self._runs:
            here = found is not ABSENT and k in self.here
            if self.processes.shards is not None:
                self.processes.note(f"whether loss {self.objectives[k].name!r} is there, under fully_shard", here)
            (self.holders[k],) = self.processes.count([here])
            if not here:
                self.here = [other for other in self.here if other != k]
                found = self._constant() if self.holders[k] else ABSENT
        if found is ABSENT:
            self.keep(set(self.present) - {k})
            if not self.present:
                raise self._nothing()
            return None
        return self._read(k, found)

    def losses(self) -> list[torch.Tensor]:
        """All that are present, where all are tensors."""
        return [self._read(k, self.given[k]) for k in self.present]

    def _read(self, k: int, found: object) -> torch.Tensor:
        loss = check_loss(self.objectives[k].name, found, graph=self.graph)
        self._found[k] = loss.detach()
        self._numbers = None
        factor = self.objectives[k].sign * self.scale
        if self.processes is not None:
            factor /= self.holders[k]
        if factor != 1.0:
            loss = loss * factor
        return loss.reshape(()) if loss.ndim else loss

    def keep(self, present: Set[int]) -> None:
        """Take all other losses as absent."""
        self.present = [k for k in self.present if k in present]
        self._found = {k: value for k, value in self._found.items() if k in present}
        self._numbers = None

    @property
    def values(self) -> list[float]:
        """The losses as the user knows them, once they were run: one transfer from a device, when all is queued.

        Of several processes, all ask at the same time.
        """
        if self._numbers is None:
            found = self._found.values()
            if all(value.is_cpu for value in found):
                self._numbers = [float(value) for value in found]
            else:
                self._numbers = torch.stack([value.reshape(()).double() for value in found]).tolist()
            if self.processes is not None:
                sums = self.processes.sum_numbers(self._numbers)
                self._numbers = [total / self.holders[k] for k, total in zip(self._found, sums, strict=True)]
        return self._numbers

    @property
    def named_values(self) -> dict[str, float]:
        return dict(zip(self.names, self.values, strict=True))

    def signed(self, objectives: Sequence[int]) -> torch.Tensor:
        """The losses of these objectives with the sign that the rule sees: float64 on the CPU."""
        by_objective = dict(zip(self.present, self.values, strict=True))
        return torch.tensor([self.objectives[k].sign * by_objective[k] for k in objectives], dtype=torch.float64)

    def non_finite(self) -> str:
        """Which losses are NaN or infinite, in words; none when all is well."""
        if all(map(math.isfinite, self.values)):
            return ""
        bad = [name for name, value in self.named_values.items() if not math.isfinite(value)]
        return f"non-finite loss: {', '.join(bad)}"
