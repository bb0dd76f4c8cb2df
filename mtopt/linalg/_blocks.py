"""Columns of K rows that lie in many tensors, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from mtopt.linalg._sizes import CHUNK, SEGMENT

Block = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""Columns of all rows, in one matrix; or those of two rows, a tensor for each."""

BlockSource = Callable[[], Iterator[Block]]


def cut_into_blocks(rows: Sequence[Sequence[torch.Tensor]]) -> Iterator[Block]:
    """Column blocks (K, n <= CHUNK) of the rows: big tensors are cut, small neighbours are joined.

    A block holds until the next one is asked for: those that are cut lie in one place. A new place for each would leave
    holes in the heap, since the products come to lie between them: up to a whole Jacobian, which the heap keeps.
    """
    window: torch.Tensor | None = None
    pending: list[int] = []
    columns = 0
    for index, tensor in enumerate(rows[0]):
        size = tensor.numel()
        if columns + size > CHUNK or (pending and not _are_alike(tensor, rows[0][pending[0]])):
            if pending:
                yield _join(rows, pending)
            pending, columns = [], 0
        if size > CHUNK:
            flat = [row[index].reshape(-1) for row in rows]
            if len(flat) == 2 and tensor.is_cpu and tensor.dtype == torch.float32:
                yield flat[0], flat[1]
                continue
            if window is None or not _are_alike(window, tensor):
                window = tensor.new_empty(len(rows) * CHUNK)
            for start in range(0, size, CHUNK):
                pieces = [f[start : start + CHUNK] for f in flat]
                yield torch.stack(pieces, out=window[: len(rows) * len(pieces[0])].view(len(rows), -1))
        else:
            pending.append(index)
            columns += size
    if pending:
        yield _join(rows, pending)


def _are_alike(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    return tensor.dtype == other.dtype and tensor.device == other.device


def _join(rows: Sequence[Sequence[torch.Tensor]], indices: list[int]) -> torch.Tensor:
    """Some tensors of each row, one after the other, and zeros up to whole segments where there are several."""
    columns = sum([rows[0][i].numel() for i in indices])
    missing = -columns % SEGMENT if columns > SEGMENT else 0
    filling = [rows[0][indices[0]].new_zeros(missing)] if missing else []
    pieces = []
    for row in rows:
        pieces += [row[i].reshape(-1) for i in indices]
        pieces += filling
    return torch.cat(pieces).view(len(rows), columns + missing)
