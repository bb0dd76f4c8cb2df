"""Inner products of K rows: float32 products of short segments, added in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext

import numpy as np
import torch

from mtopt.linalg._arrays import load_lapack
from mtopt.linalg._entries import by_device
from mtopt.linalg._gramian import normalize_gramian
from mtopt.linalg._parts import sum_parts
from mtopt.linalg._sizes import CHUNK, SEGMENT

Block = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""Columns of all rows, in one matrix; or those of two rows, a tensor for each."""

BlockSource = Callable[[], Iterator[Block]]

_DEPENDENT = 1e-3
"""Squared distance of a unit gradient from the span of those before it below which float32 products know too little of
it: the products are then taken in float64."""

_APART = 1e6
"""Ratio of two gradients' squared norms from which the same holds: what is little for one decides for the other."""


def gramian_of(jacobian: torch.Tensor) -> torch.Tensor:
    """J Jᵀ of a (K, D) Jacobian: (K, K), float64, on the CPU.

    Products run over 1,024 columns each in the rows' own precision (float32 for 16-bit rows) and are summed in
    float64, so the error stays near 1e-7 of the norms whatever D; one float32 product loses 1e-3 at D = 1e7. Where
    float32 would underflow or overflow, or the rows are nearly dependent on each other or of lengths a thousand times
    apart, float64 is used throughout.
    """
    if jacobian.ndim != 2 or jacobian.shape[0] == 0:
        raise ValueError(f"jacobian must have shape (K, D) with K >= 1, found {tuple(jacobian.shape)}")
    return sum_products(lambda: iter(torch.split(jacobian, CHUNK, dim=1)))[0]


def sum_products(blocks: BlockSource) -> tuple[torch.Tensor, bool]:
    """The sum of ``B @ B.T`` over column blocks ``B``, and whether all of it was multiplied in float64.

    ``blocks()`` starts the iteration anew.
    """
    gramian, in_double = _sum_in(blocks(), exact=False)
    gramian = sum_parts(gramian)
    if in_double or not needs_double(gramian):
        return gramian, in_double
    gramian, in_double = _sum_in(blocks(), exact=True)
    return sum_parts(gramian), in_double


def needs_double(gramian: torch.Tensor) -> bool:
    """Whether float32 products leave the norms, or how the gradients depend on each other, undecided."""
    squares = gramian.numpy().diagonal().tolist()
    # A float32 square is exact enough between these bounds. A zero may be one, or an underflow; infinity may be
    # the row's or an overflow.
    if not all(1e-20 <= square < 1e30 for square in squares):
        return True
    if max(squares) > _APART * min(squares):
        return True
    if len(squares) <= 2:
        return len(squares) == 2 and squares[0] * squares[1] * (1.0 - _DEPENDENT) < gramian.tolist()[0][1] ** 2
    matrix = gramian.numpy()
    if not np.isfinite(matrix).all():
        return True
    factor, failed = load_lapack().dpotrf(normalize_gramian(matrix)[0])
    return bool(failed) or float(factor.diagonal().min()) ** 2 < _DEPENDENT


def _sum_in(blocks: Iterator[Block], *, exact: bool) -> tuple[torch.Tensor, bool]:
    products: list[torch.Tensor] = []
    rounding: dict[str, bool] = {}  # of the products of a kind of device
    all_double = True
    for block in blocks:
        first = block[0] if isinstance(block, tuple) else block
        if first.is_complex():
            raise TypeError(
                f"gradients of complex parameters ({str(first.dtype).removeprefix('torch.')}) have no real inner "
                "products; hold such a parameter as two real numbers an entry, torch.view_as_real(value), and use "
                "torch.view_as_complex in the model; or use a rule on losses"
            )
        kind = first.device.type
        if kind not in rounding:
            rounding[kind] = rounds_products(kind)
        in_double = exact or rounding[kind]
        all_double = all_double and (in_double or first.dtype == torch.float64)
        # autocast is asked first: entering the context takes its time
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext():
            products.append(_multiply(block, in_double))
    if len(products) == 1:
        return products[0].cpu(), all_double
    totals = [torch.stack(found).sum(0).cpu() for found in by_device(products)]  # one transfer a device
    return totals[0] if len(totals) == 1 else torch.stack(totals).sum(0), all_double


def rounds_products(device_type: str) -> bool:
    """Whether float32 matrix products may be TF32 or bfloat16 ones, autocast apart."""
    backend = {"cpu": torch.backends.mkldnn, "cuda": torch.backends.cuda}.get(device_type)
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if precision is not None:  # the settings of PyTorch 2.9; the older function reads them, too, but not every mixture
        return precision not in ("none", "ieee")
    return torch.get_float32_matmul_precision() != "highest"


def _multiply(block: Block, in_double: bool) -> torch.Tensor:
    if isinstance(block, tuple):
        if not in_double:
            return _multiply_two(*block)
        parts = zip(*[torch.split(row, CHUNK) for row in block], strict=True)
        return torch.stack([_multiply(torch.stack(part), True) for part in parts]).sum(0)
    if in_double or block.dtype == torch.float64:
        block = block.double()
        return block @ block.T
    return _multiply_in_float32(block.float())


def _multiply_in_float32(block: torch.Tensor) -> torch.Tensor:
    """``block @ block.T`` in float64, from float32 products over segments of the columns."""
    count = block.shape[1] // SEGMENT
    if count == 0:
        return (block @ block.T).double()
    down, along = block.stride()
    segments = block.as_strided((count, len(block), SEGMENT), (SEGMENT * along, down, along))
    product = torch.bmm(segments, segments.mT).sum(0, dtype=torch.float64)
    if block.shape[1] == count * SEGMENT:
        return product
    rest = block[:, count * SEGMENT :]
    return product + (rest @ rest.T).double()


def _multiply_two(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """The same for two rows that lie apart, which are not copied to one place: half the time for long ones."""
    count = len(one) // SEGMENT
    end = count * SEGMENT
    a, b = one[:end].view(count, 1, SEGMENT), other[:end].view(count, 1, SEGMENT)
    sums = [torch.bmm(x, y.mT).sum(dtype=torch.float64) for x, y in ((a, a), (a, b), (b, b))]
    product = torch.stack([sums[0], sums[1], sums[1], sums[2]]).view(2, 2)
    if end == len(one):
        return product
    rest = torch.stack([one[end:], other[end:]])
    return product + (rest @ rest.T).double()


# -- columns, some at a time -------------------------------------------------------------------------------------


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
