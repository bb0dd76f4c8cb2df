"""In what form rows are kept until all are there: in 16 bits, or in one matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mtopt.linalg._combination import PackedTensors
from mtopt.linalg._complex import view_reals, view_shard
from mtopt.linalg._gradients import Place

Row = list[torch.Tensor | None]
"""One loss's gradient, one tensor per parameter; None where the loss does not reach the parameter."""

_TOP = 15
"""float16 rows are scaled so that their largest entry is just below 2**15: half of what the dtype holds."""

STAYS_APART = 1 << 18
"""Entries of a tensor that stays where it is: it leaves few holes, and copying it takes its time."""

LITTLE = 1 << 20
"""Entries of all rows together up to which holes do not matter."""


def store_short(rows: Iterable[Row], dtype: torch.dtype) -> tuple[list[Row], list[float]]:
    """``rows`` in 16 bits, and what each is to be multiplied with.

    A float16 row is scaled by a power of two so that its entries fit; bfloat16 has the range of float32.
    """
    kept, factors = [], []
    for row in rows:
        factor = _factor(row) if dtype == torch.float16 else 1.0
        kept.append([None if g is None else (g if factor == 1.0 else g / factor).to(dtype) for g in row])
        factors.append(factor)
        row.clear()
    return kept, factors


def _factor(row: Row) -> float:
    found = [g for g in row if g is not None]
    largest = max(float(g.abs().max()) if g.numel() else 0.0 for g in found)
    if largest == 0.0 or not math.isfinite(largest):
        return 1.0
    return math.ldexp(1.0, math.frexp(largest)[1] - _TOP)


@dataclass(frozen=True, slots=True)
class RowMatrix:
    """Where rows lie in a matrix: a row holds None for what is in it.

    Attributes:
        columns: for each parameter of which it is so, by its index, the first column and the one after the last.
        matrix: (K, n); zero where a loss does not reach a parameter.
        absent: rows and parameters of which that is so.
    """

    columns: Mapping[int, tuple[int, int]]
    matrix: torch.Tensor
    absent: set[tuple[int, int]]

    def gradient(self, number: int, index: int, like: torch.Tensor) -> torch.Tensor | None:
        """The gradient of parameter ``index`` in a row: a view; None where it is not here."""
        if index not in self.columns or (number, index) in self.absent:
            return None
        start, end = self.columns[index]
        return self.matrix[number, start:end].reshape(like.shape)

    def packed(self, indices: Sequence[int], places: Sequence[Place]) -> list[PackedTensors]:
        """What lies in the matrix of some parameters, in as few parts as it takes."""
        parts: list[PackedTensors] = []
        positions: list[int] = []
        start = end = 0
        for position, index in enumerate(indices):
            found = self.columns.get(index)
            if found is None:
                continue
            if found[0] != end and positions:
                parts.append(self._part(positions, start, end, places))
                positions = []
            if not positions:
                start = found[0]
            positions.append(position)
            end = found[1]
        return [*parts, self._part(positions, start, end, places)] if positions else parts

    def _part(self, positions: Sequence[int], start: int, end: int, places: Sequence[Place]) -> PackedTensors:
        shapes = [view_reals(places[p].parameter).shape for p in positions]
        return PackedTensors(positions, shapes, self.matrix[:, start:end])


def store_in_matrix(
    rows: Iterable[Row], params: Sequence[torch.Tensor], count: int, *, below: float = math.inf, scale: float = 1.0
) -> tuple[list[Row], RowMatrix | None]:
    """``rows`` divided by ``scale``, with the tensors of the first row's parameters moved to one matrix.

    A rule that needs coordinates takes the matrix as it is, and no second Jacobian is made for it. For other rules it
    is for small tensors, those with fewer than ``below`` entries, where they are many and on the CPU: kept one by one
    they would leave holes in the heap as activations come and go, more than a Jacobian on a transformer.
    """
    params = [view_reals(param) for param in params]
    if below < math.inf and count * sum([p.numel() for p in params if p.numel() < below and p.is_cpu]) <= LITTLE:
        return list(rows), None
    kept: list[Row] = []
    matrix: RowMatrix | None = None
    for row in rows:
        if not kept:
            matrix = _lay_out(row, count, below)
        if matrix is not None:
            _move(row, matrix, len(kept), params, scale)
        if scale != 1.0:
            row[:] = [g if g is None else g / scale for g in row]  # may be another row's, too: not in place
        kept.append(row)
    if matrix is not None and len(kept) < count:  # a callable said that its loss is absent
        matrix = replace(matrix, matrix=matrix.matrix[: len(kept)])
    return kept, matrix


def _lay_out(row: Row, count: int, below: float) -> RowMatrix | None:
    columns: dict[int, tuple[int, int]] = {}
    first: torch.Tensor | None = None
    end = 0
    for index, gradient in enumerate(row):
        if type(gradient) is not torch.Tensor or (size := gradient.numel()) >= below or not gradient.is_contiguous():
            continue  # not there, of a class with its own ideas, big, or in another order
        if first is None:
            first = gradient
        elif gradient.dtype != first.dtype or gradient.device != first.device:
            continue
        columns[index] = end, end + size
        end += size
    return None if first is None else RowMatrix(columns, first.new_empty((count, end)), set())


def _move(row: Row, matrix: RowMatrix, number: int, params: Sequence[torch.Tensor], scale: float) -> None:
    pieces = []
    for index in matrix.columns:
        gradient = row[index]
        if gradient is None:
            matrix.absent.add((number, index))
            gradient = params[index].new_zeros(params[index].numel())
        pieces.append(gradient.reshape(-1))
        row[index] = None
    line = matrix.matrix[number]
    torch.cat(pieces, out=line)
    if scale != 1.0:
        line.div_(scale)


def rows_fit(params: Sequence[torch.Tensor], count: int) -> bool:
    """Whether ``count`` gradients fit in the memory that is free on each CUDA device; elsewhere they always do.

    Of a sharded parameter only what lies here is kept.
    """
    wanted: dict[torch.device, int] = {}
    for param in map(view_shard, params):
        if param.is_cuda:
            wanted[param.device] = wanted.get(param.device, 0) + count * param.numel() * param.element_size()
    for device, size in wanted.items():
        allocated = torch.cuda.memory_allocated(device)
        if 2 * (size + allocated) < torch.cuda.get_device_properties(device).total_memory:
            continue  # without asking the driver, which is slow
        free, _ = torch.cuda.mem_get_info(device)
        if size >= 0.9 * (free + torch.cuda.memory_reserved(device) - allocated):
            return False
    return True
