"""In what form rows are kept until all are there: as they are, in 16 bits, or in one matrix."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from mtopt.autograd._rows import Row

_TOP = 15
"""float16 rows are scaled so that their largest entry is just below 2**15: half of what the dtype holds."""


def kept_short(rows: Iterable[Row], dtype: torch.dtype) -> tuple[list[Row], list[float]]:
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


def kept_in_matrix(
    rows: Iterable[Row], params: Sequence[torch.Tensor], count: int, scale: float
) -> tuple[list[Row], list[float]]:
    """``rows`` as views of the rows of one matrix, free of ``scale``, and what each is to be multiplied with.

    A rule that needs coordinates then takes the matrix as it is, and no second Jacobian is made for it.
    """
    sizes = [param.numel() for param in params]
    matrix = params[0].new_empty((count, sum(sizes)))
    kept: list[Row] = []
    for line, row in zip(matrix, rows, strict=True):
        places = zip(torch.split(line, sizes), params, strict=True)
        views = [piece.view(param.shape) for piece, param in places]
        reached = [(view, g) for view, g in zip(views, row, strict=True) if g is not None]
        torch._foreach_copy_([view for view, _ in reached], [g for _, g in reached])
        if scale != 1.0:
            torch._foreach_div_([view for view, _ in reached], scale)
        kept.append([None if g is None else view for view, g in zip(views, row, strict=True)])
        del reached
        row.clear()  # the loop itself holds the list while the next row is made
    return kept, [scale] * count


def fits_matrix(params: Sequence[torch.Tensor]) -> bool:
    """Whether the gradients have one dtype and one device."""
    first = params[0]
    return all(param.dtype == first.dtype and param.device == first.device for param in params)
