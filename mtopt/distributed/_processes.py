"""What a step asks of the processes that it runs in, and the answers where there is one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch

from mtopt.distributed._sharded import refuse_sharded
from mtopt.distributed._shards import Shards
from mtopt.linalg import Place, Row

NamedRow = tuple[str, Row]
"""A row and the name of its loss."""


class Processes(ABC):
    """The processes of one step, as a context around it: what one cannot do raises on all of them.

    Attributes:
        several: there is more than one.
        rank, size: the number of this one, and how many there are.
        shards: what each has of the parameters, where ``fully_shard`` holds them; None where each has them all.
    """

    several: bool
    rank: int
    size: int
    shards: Shards | None = None

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    @abstractmethod
    def hold(self, places: list[Place]) -> list[Place]:
        """``places`` of the parameters of this step, with shards where ``fully_shard`` has put whole ones."""

    def differentiate(
        self,
        outputs: Sequence[torch.Tensor],
        params: Sequence[torch.Tensor],
        seeds: Sequence[torch.Tensor] | None = None,
        *,
        retain_graph: bool,
    ) -> Sequence[torch.Tensor | None]:
        """One backward pass. Of sharded parameters the gradients are summed over the processes, of others they are not.

        ``outputs`` must reach the same sharded parameters on all of them.
        """
        return torch.autograd.grad(outputs, params, seeds, retain_graph=retain_graph, allow_unused=True)

    @abstractmethod
    def note(self, what: str, value: object) -> None:
        """What must be the same everywhere when the processes meet next."""

    @abstractmethod
    def meet(self, flag: bool = False) -> bool:
        """Whether one of them has this flag, once it is known that all are well and at the same place."""

    @abstractmethod
    def count(self, flags: Sequence[bool]) -> list[int]:
        """How many have each flag."""

    @abstractmethod
    def join_masks(self, masks: Sequence[int], width: int) -> list[int]:
        """The masks, of so many bits each, with every bit that one of the processes has."""

    @abstractmethod
    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """The sums over the processes."""

    def means(self, numbers: Mapping[int, float], total: int) -> dict[int, float]:
        """The mean of each of ``total`` numbers over the processes that have it, by position; none where nobody has."""
        holders = self.count([k in numbers for k in range(total)])
        sums = self.sum_numbers([numbers.get(k, 0.0) for k in range(total)])
        return {k: sums[k] / holders[k] for k in range(total) if holders[k]}

    @abstractmethod
    def gather(self, value: Any) -> list[Any]:
        """A small plain value of each, in their order."""

    @abstractmethod
    def take_first(self, what: str, tensors: Sequence[torch.Tensor]) -> None:
        """Give tensors, in place and bit for bit, the values that they have in the first."""

    @abstractmethod
    def share(self, table: torch.Tensor) -> torch.Tensor:
        """A small float64 tensor as the first has it, where all have it up to rounding."""

    @abstractmethod
    def sum_products(self, gramian: torch.Tensor) -> torch.Tensor:
        """The sum of symmetric (K, K) matrices, symmetric to the last bit."""

    @abstractmethod
    def sum_rows(self, rows: Iterator[NamedRow], params: Sequence[torch.Tensor]) -> Iterator[NamedRow]:
        """Rows over ``params`` summed one by one; what one of the processes reaches, all have."""

    @abstractmethod
    def sum_gradients(
        self, what: str, gradients: Sequence[torch.Tensor | None], params: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor | None]:
        """The same for the gradients of one backward pass."""

    @abstractmethod
    def join_words(self, words: str) -> str:
        """Why the step cannot be made, as all that have words for it say; none where nobody has."""

    @abstractmethod
    def part(self) -> None:
        """Nothing is agreed after this: what is raised is this process's own."""


class OneProcess(Processes):
    """One process: every answer is what was asked."""

    several = False
    rank = 0
    size = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def hold(self, places: list[Place]) -> list[Place]:
        refuse_sharded([place.parameter for place in places])
        return places

    def note(self, what: str, value: object) -> None:
        return

    def meet(self, flag: bool = False) -> bool:
        return flag

    def count(self, flags: Sequence[bool]) -> list[int]:
        return list(map(int, flags))

    def join_masks(self, masks: Sequence[int], width: int) -> list[int]:
        return list(masks)

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        return list(numbers)

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def take_first(self, what: str, tensors: Sequence[torch.Tensor]) -> None:
        return

    def share(self, table: torch.Tensor) -> torch.Tensor:
        return table

    def sum_products(self, gramian: torch.Tensor) -> torch.Tensor:
        return gramian

    def sum_rows(self, rows: Iterator[NamedRow], params: Sequence[torch.Tensor]) -> Iterator[NamedRow]:
        return rows

    def sum_gradients(
        self, what: str, gradients: Sequence[torch.Tensor | None], params: Iterable[torch.Tensor]
    ) -> Sequence[torch.Tensor | None]:
        return gradients

    def join_words(self, words: str) -> str:
        return words

    def part(self) -> None:
        return


ALONE = OneProcess()
