"""Whether ranks that should be alike still are."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mtopt.distributed._find import processes_of, unwrapped
from mtopt.distributed._ranks import RankError, Ranks
from mtopt.distributed._sharded import find_shard
from mtopt.linalg import view_shard

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Agreement:
    """Compares the weights of a step and the parameters over the ranks, every ``every`` steps.

    ::

        agreement = mtopt.distributed.Agreement(model)
        for batch in batches:
            record = mtopt.backward(losses(batch), model, combiner)
            optimizer.step()
            agreement.check(record.weights)

    Replicas that drift apart train on without a word: after a seed of its own on one rank, say, or a parameter that was
    left out of what is averaged. The sum of each parameter's bits is compared, for which it is read once; three numbers
    of each rank travel. Of shards those are compared that should be the same: the copies on a mesh of two dimensions.

    Args:
        params: the model, or its parameters in a list.
        every: steps from one comparison to the next, >= 1. Default: 100.
    """

    def __init__(
        self, params: nn.Module | Sequence[torch.Tensor] | Sequence[tuple[str, torch.Tensor]], every: int = 100
    ) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a positive int, found {every!r}")
        self.params, self.every, self.steps = params, every, 0

    def check(self, weights: Mapping[str, float] | None = None) -> bool:
        """Count a step; whether it was one of those that are compared. All ranks must ask.

        Args:
            weights: those of the step's record.

        Raises:
            RankError: on all ranks, naming those that differ from the first, and in what: the weights, or the parameter
                that comes first.
        """
        self.steps += 1
        if self.steps % self.every:
            return False
        processes = processes_of(self.params)
        if isinstance(processes, Ranks):
            self._compare(processes, repr(sorted((weights or {}).items())))
        return True

    def _compare(self, ranks: Ranks, weights: str) -> None:
        params = unwrapped(self.params)
        entries: list[Any] = list(params.named_parameters() if isinstance(params, nn.Module) else params)
        named = [entry if isinstance(entry, tuple) else (f"params[{n}]", entry) for n, entry in enumerate(entries)]
        shards = [find_shard(param) for _, param in named]
        sums = _sum_bits(map(view_shard, shards))
        part = _part_of(shards)
        mine = [float(part), float(zlib.crc32(weights.encode())), float(zlib.crc32(repr(sums).encode()))]
        found = ranks.gather_numbers(mine)
        first = {numbers[0]: numbers[2] for numbers in reversed(found)}  # of each part the first rank that has it
        if all(numbers[1] == found[0][1] and numbers[2] == first[numbers[0]] for numbers in found):
            return
        _raise_difference(ranks.gather_objects((part, weights, sums)), [name for name, _ in named], self.steps)


def _sum_bits(tensors: Iterable[torch.Tensor]) -> list[int]:
    """The sum of the bits of each tensor, as whole numbers: another in any order is the same, another bit is not."""
    found = []
    for tensor in tensors:
        tensor = tensor.detach().resolve_conj()
        flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)
        found.append(flat.view(_INTEGERS[flat.element_size()]).sum(dtype=torch.int64))
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for total in found:
        by_device.setdefault(total.device, []).append(total)
    read = {device: iter(torch.stack(totals).tolist()) for device, totals in by_device.items()}  # one transfer each
    return [next(read[total.device]) for total in found]


def _part_of(params: Sequence[torch.Tensor]) -> int:
    """Which shard of the parameters this rank has: 0 where it has them all."""
    meshes = [mesh for mesh in (getattr(param, "device_mesh", None) for param in params) if mesh is not None]
    part: int = meshes[0].get_local_rank(meshes[0].ndim - 1) if meshes else 0
    return part


def _raise_difference(found: Sequence[tuple[int, str, list[int]]], names: Sequence[str], steps: int) -> None:
    told = []
    for rank, (part, weights, sums) in enumerate(found):
        other = next(n for n, (its, _, _) in enumerate(found) if its == part)
        if weights != found[0][1]:
            told.append(f"rank {rank} weighs by {weights}, rank 0 by {found[0][1]}")
        differing = [name for name, one, its in zip(names, sums, found[other][2], strict=True) if one != its]
        if differing:
            more = f", and in {len(differing) - 1} more" if len(differing) > 1 else ""
            told.append(f"rank {rank} differs from rank {other} in the parameter {differing[0]!r}{more}")
    raise RankError(
        f"the ranks are not alike after {steps} steps: {'; '.join(told)}. Start all from the same parameters "
        "(DistributedDataParallel sees to it), and leave no rank's own random numbers to rules and models"
    )
