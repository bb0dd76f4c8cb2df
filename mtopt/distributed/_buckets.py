"""Gradients on their way to and from the other ranks, in flat buckets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mtopt.linalg import cut_to_shapes, split_complex, view_reals

BUCKET_BYTES = 25 << 20
"""Bytes that travel together; a larger tensor travels by itself."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Some tensors of a row in one, and the sum that is under way."""

    positions: Sequence[int]
    shapes: Sequence[torch.Size]
    flat: torch.Tensor
    work: Any

    def land(self, into: list[torch.Tensor | None]) -> None:
        """Wait for the sum, and put its parts where they belong."""
        self.work.wait()
        for position, piece in zip(self.positions, cut_to_shapes(self.flat, self.shapes), strict=True):
            into[position] = piece


def launch(
    gradients: list[torch.Tensor | None], positions: Sequence[int], params: Sequence[torch.Tensor], group: Any
) -> list[Bucket]:
    """Sums over the ranks of the gradients of some parameters, begun; zeros where this rank has none.

    Always copied: autograd may hand out one tensor for two parameters, or one of the user's. The list is emptied.
    """
    found = []
    for run in _runs(positions, params):
        parts = []
        for position in run:
            gradient, like = gradients[position], view_reals(params[position])
            gradients[position] = None
            parts.append(like.new_zeros(like.numel()) if gradient is None else split_complex(gradient).reshape(-1))
        flat = torch.cat(parts)
        del parts
        work = torch.distributed.all_reduce(flat, group=group, async_op=True)
        found.append(Bucket(run, [view_reals(params[p]).shape for p in run], flat.detach(), work))
    return found


@torch.no_grad()
def copy_first(tensors: Sequence[torch.Tensor], group: Any, device: torch.device) -> None:
    """What the first rank has in ``tensors``, byte for byte, in those of all ranks; it travels from ``device``."""
    for run in _runs(range(len(tensors)), tensors):
        parts = [tensors[p].contiguous().reshape(-1).view(torch.uint8) for p in run]
        flat = torch.cat(parts).to(device)
        torch.distributed.broadcast(flat, group=group, group_src=0)
        if torch.distributed.get_rank(group) == 0:
            continue
        pieces = flat.split_with_sizes([part.numel() for part in parts])
        for position, piece in zip(run, pieces, strict=True):
            tensor = tensors[position]
            tensor.copy_(piece.clone().view(tensor.dtype).reshape(tensor.shape))


def _runs(positions: Sequence[int], params: Sequence[torch.Tensor]) -> list[list[int]]:
    """``positions`` by device and dtype, and no more than a bucket of them in a run."""
    runs: dict[tuple[torch.device, torch.dtype], list[list[int]]] = {}
    room: dict[tuple[torch.device, torch.dtype], int] = {}
    for position in positions:
        param = params[position]
        key, size = (param.device, param.dtype), param.numel() * param.element_size()
        if key not in runs or size > room[key]:
            runs.setdefault(key, []).append([])
            room[key] = BUCKET_BYTES
        runs[key][-1].append(position)
        room[key] -= size
    return [run for found in runs.values() for run in found]
