"""Several ranks with all the parameters each, or shards: what they agree on, and how their gradients are summed."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import torch

from mtopt.distributed._buckets import Bucket, copy_first, launch
from mtopt.distributed._processes import NamedRow, Processes
from mtopt.distributed._sharded import find_shard, is_sharded, refuse_elsewhere
from mtopt.distributed._shards import Shards
from mtopt.linalg import Place, columns_in_parts

_SLOTS = 64
"""Numbers that the ranks exchange at once: of one size always, since a rank that failed does not know what the others
are about to say."""

_ROOM = _SLOTS - 2

_BITS = 48
"""Bits of a mask in a number."""


class RankError(RuntimeError):
    """Another rank failed, or the ranks do not do the same; raised on all of them, and no rank changed anything."""


class Ranks(Processes):
    """One step of the ranks of a process group.

    Between two pieces of work of its own every rank says in one exchange of fixed size whether it is well, what it is
    about to do (a checksum), and a few numbers. A rank that raises says so in the exchange that the others come to
    next, wherever that is; nobody enters a collective of another size before. Results are the same bit for bit on all
    ranks: numbers are added in the order of ranks, tensors by one all-reduce.
    """

    several = True

    def __init__(self, group: Any = None) -> None:
        distributed = torch.distributed
        self.group = group
        self.rank, self.size = distributed.get_rank(group), distributed.get_world_size(group)
        self.device = _device_of(group)
        self._notes: list[tuple[str, str]] = []
        self._talking = self._parted = False
        self._within = contextlib.ExitStack()

    # -- agreement ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._within.close()
        if not isinstance(error, Exception) or isinstance(error, RankError) or self._parted:
            return  # all is well, or all know, or nobody can be told
        if self._talking:
            error.ranks_were_told = True  # type: ignore[attr-defined]  # as far as anybody can be
        if not getattr(error, "ranks_were_told", False):
            error.ranks_were_told = True  # type: ignore[attr-defined]
            self._exchange([1.0, 0.0])
            self._gather(f"{type(error).__name__}: {error}")

    def note(self, what: str, value: object) -> None:
        self._notes.append((what, str(value)))

    def meet(self, flag: bool = False) -> bool:
        return any(numbers[0] for numbers in self._tell([float(flag)]))

    def join_words(self, words: str) -> str:
        if not self.meet(bool(words)):
            return ""
        found = self._gather(words)
        if len(set(found)) == 1:
            return words
        return "; ".join(f"on rank {rank}: {each}" for rank, each in enumerate(found) if each)

    def part(self) -> None:
        self._parted = True

    def _tell(self, numbers: Sequence[float]) -> list[list[float]]:
        """The numbers of each rank, as many as here, once all are well and have noted the same."""
        self.note("how many numbers they tell each other", len(numbers))
        mine = zlib.crc32("\0".join([part for pair in self._notes for part in pair]).encode())
        short = len(numbers) <= _ROOM
        found = self._exchange([0.0, float(mine), *(numbers if short else ())])
        if any(each[0] for each in found):
            self._raise_failure()
        if any(each[1] != mine for each in found):
            self._raise_difference()
        self._notes.clear()
        if short:
            return [each[2 : 2 + len(numbers)] for each in found]
        return self._all(torch.tensor(numbers, dtype=torch.float64))

    def gather_numbers(self, numbers: Sequence[float]) -> list[list[float]]:
        """A few numbers of each rank, which all give as many of."""
        return self._tell(numbers)

    def gather_objects(self, mine: Any) -> list[Any]:
        """Something of each rank."""
        return self._gather(mine)

    def _exchange(self, numbers: Sequence[float]) -> list[list[float]]:
        return self._all(torch.tensor([*numbers, *[0.0] * (_SLOTS - len(numbers))], dtype=torch.float64))

    def _all(self, mine: torch.Tensor) -> list[list[float]]:
        mine = mine.to(self.device)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with self._talk():
            torch.distributed.all_gather(found, mine, group=self.group)
            numbers: list[list[float]] = torch.stack(found).tolist()
        return numbers

    def _gather(self, mine: object) -> list[Any]:
        found: list[Any] = [None] * self.size
        with self._talk():
            torch.distributed.all_gather_object(found, mine, group=self.group)
        return found

    @contextlib.contextmanager
    def _talk(self) -> Iterator[None]:
        """Around a collective: where one fails, a rank is gone, and there is nobody to tell."""
        self._talking = True
        try:
            yield
        except RuntimeError as error:
            raise RankError(
                f"another of the {self.size} ranks has ended, or does not answer: see what it printed last ({error})"
            ) from error
        self._talking = False

    def _raise_failure(self) -> None:
        failures = [f"rank {rank} raised {text}" for rank, text in enumerate(self._gather("")) if text]
        raise RankError(f"the step was given up on all {self.size} ranks: {'; '.join(failures)}")

    def _raise_difference(self) -> None:
        notes: list[list[tuple[str, str]]] = self._gather(self._notes)
        first = next(
            n for n in range(max(map(len, notes))) if len({tuple(each[n : n + 1]) for each in notes}) > 1
        )  # what comes before is the same
        found = [each[first] if first < len(each) else ("nothing", "") for each in notes]
        whats = {what for what, _ in found}
        if len(whats) == 1:
            told = ", ".join(f"{value} on rank {rank}" for rank, (_, value) in enumerate(found))
            raise RankError(f"the ranks must agree in {found[0][0]}, found {told}")
        told = ", ".join(f"{what} ({value}) on rank {rank}" for rank, (what, value) in enumerate(found))
        raise RankError(f"the ranks must run the same steps in the same order, found {told}")

    # -- shards -------------------------------------------------------------------------------------------------

    def hold(self, places: list[Place]) -> list[Place]:
        params = [place.parameter for place in places]
        refuse_elsewhere(params)
        if not is_sharded(params):
            return places
        places = [place._replace(parameter=find_shard(place.parameter)) for place in places]
        self.shards = Shards([place.parameter for place in places])
        self._within.callback(self.shards.release)
        self._within.enter_context(columns_in_parts(self._sum_parts))
        return places

    def differentiate(
        self,
        outputs: Sequence[torch.Tensor],
        params: Sequence[torch.Tensor],
        seeds: Sequence[torch.Tensor] | None = None,
        *,
        retain_graph: bool,
    ) -> Sequence[torch.Tensor | None]:
        if self.shards is None:
            return super().differentiate(outputs, params, seeds, retain_graph=retain_graph)
        return self.shards.differentiate(outputs, params, seeds, retain_graph=retain_graph)

    def _sum_parts(self, table: torch.Tensor) -> torch.Tensor:
        """The sum over those ranks that have all shards once."""
        assert self.shards is not None
        symmetric = table.ndim == 2 and len(table) == table.shape[1]
        lower = torch.tril_indices(*table.shape) if symmetric else None
        numbers = table.flatten() if lower is None else table[lower[0], lower[1]]
        told = self._tell(numbers.tolist())
        total = torch.tensor([told[rank] for rank in self.shards.first], dtype=table.dtype).sum(0)
        if lower is None:
            return total.reshape(table.shape)
        return _from_triangle(total, lower)

    # -- small numbers ------------------------------------------------------------------------------------------

    def count(self, flags: Sequence[bool]) -> list[int]:
        return [int(sum(column)) for column in zip(*self._tell(list(map(float, flags))), strict=True)]

    def join_masks(self, masks: Sequence[int], width: int) -> list[int]:
        words = -(-width // _BITS)
        limit = (1 << _BITS) - 1
        numbers = [float(mask >> _BITS * n & limit) for mask in masks for n in range(words)]
        joined = [0] * len(masks)
        for told in self._tell(numbers):
            for position, number in enumerate(told):
                index, n = divmod(position, words)
                joined[index] |= int(number) << _BITS * n
        return joined

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        return [sum(column) for column in zip(*self._tell(numbers), strict=True)]

    def gather(self, value: Any) -> list[Any]:
        self.note("that they gather values", "")
        self.meet()
        return self._gather(value)

    def take_first(self, what: str, tensors: Sequence[torch.Tensor]) -> None:
        self.note(f"the shapes and dtypes of {what}", [(tuple(tensor.shape), str(tensor.dtype)) for tensor in tensors])
        self.meet()
        with self._talk():
            copy_first(tensors, self.group, self.device)

    def share(self, table: torch.Tensor) -> torch.Tensor:
        if table.numel() <= _ROOM:
            return torch.tensor(self._tell(table.flatten().tolist())[0], dtype=table.dtype).reshape(table.shape)
        self.note("the shape of what they share", tuple(table.shape))
        self.meet()
        found = table.to(self.device, copy=True).contiguous()
        with self._talk():
            torch.distributed.broadcast(found, group=self.group, group_src=0)
        return found.to(table.device)

    def sum_products(self, gramian: torch.Tensor) -> torch.Tensor:
        lower = torch.tril_indices(*gramian.shape)
        numbers = torch.tensor(self.sum_numbers(gramian[lower[0], lower[1]].tolist()), dtype=gramian.dtype)
        return _from_triangle(numbers, lower)

    # -- gradients ----------------------------------------------------------------------------------------------

    def sum_rows(self, rows: Iterator[NamedRow], params: Sequence[torch.Tensor]) -> Iterator[NamedRow]:
        return rows if self.shards is not None else self._sum_whole_rows(rows, params)

    def _sum_whole_rows(self, rows: Iterator[NamedRow], params: Sequence[torch.Tensor]) -> Iterator[NamedRow]:
        waiting: tuple[str, list[Bucket]] | None = None
        for name, row in rows:
            begun = name, self._launch(f"loss {name!r}", row, params)
            del row
            if waiting is not None:  # one row is on its way while the next is made
                yield waiting[0], _land(waiting[1], len(params))
            waiting = begun
            del begun
        if waiting is not None:
            yield waiting[0], _land(waiting[1], len(params))

    def sum_gradients(
        self, what: str, gradients: Sequence[torch.Tensor | None], params: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor | None]:
        if self.shards is not None:
            return gradients
        return _land(self._launch(what, list(gradients), params), len(params))

    def _launch(self, what: str, gradients: list[torch.Tensor | None], params: Sequence[torch.Tensor]) -> list[Bucket]:
        for gradient in gradients:
            if gradient is not None and gradient.layout != torch.strided:
                raise TypeError(
                    f"{what}: a gradient of shape {tuple(gradient.shape)} is sparse, and those of several ranks are "
                    "summed dense; build the embedding with sparse=False"
                )
        self.note("whose gradients they sum", what)
        mask = sum([1 << position for position, gradient in enumerate(gradients) if gradient is not None])
        (reached,) = self.join_masks([mask], len(params))
        return launch(gradients, [p for p in range(len(params)) if reached >> p & 1], params, self.group)


def _land(buckets: Sequence[Bucket], count: int) -> list[torch.Tensor | None]:
    row: list[torch.Tensor | None] = [None] * count
    for bucket in buckets:
        bucket.land(row)
    return row


def _from_triangle(numbers: torch.Tensor, lower: torch.Tensor) -> torch.Tensor:
    """The symmetric matrix of these numbers at and below its diagonal: symmetric to the last bit."""
    size = int(lower.max()) + 1
    found = numbers.new_empty(size, size)
    found[lower[0], lower[1]] = numbers
    found[lower[1], lower[0]] = numbers
    return found


def _device_of(group: Any) -> torch.device:
    """Where small numbers travel from: the CPU, if the group's backend takes it."""
    if "cpu" in torch.distributed.get_backend_config(group):
        return torch.device("cpu")
    accelerator = torch.accelerator.current_accelerator()
    return torch.device("cpu") if accelerator is None else accelerator
