"""The K gradients of one step, and what rules ask of them: norms, Gramian, Jacobian, combinations."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
import torch

from mtopt.linalg._arrays import load_lapack
from mtopt.linalg._gramian import normalize_gramian
from mtopt.linalg._ownership import is_held_alone
from mtopt.linalg._packed import PackedTensors, cut_to_shapes, rounds_products
from mtopt.linalg._precision import Precision
from mtopt.linalg._sizes import CHUNK, SEGMENT

_LOW_PRECISION = (torch.float16, torch.bfloat16)

_DEPENDENT = 1e-3
"""Squared distance of a unit gradient from the span of those before it below which float32 products know too little of
it: the products are then taken in float64."""

_CANCELLING = 1e-2
"""A combination shorter than this share of the lengths added up is summed in float64."""

Block = torch.Tensor | tuple[torch.Tensor, torch.Tensor]
"""Columns of all rows, in one matrix; or those of two rows, a tensor for each."""

BlockSource = Callable[[], Iterator[Block]]


class Place(NamedTuple):
    """Where a tensor of a gradient belongs.

    Attributes:
        parameter: the parameter that the loss was differentiated by.
        position: its place among the parameters given to the step, frozen ones included.
        name: as ``named_parameters()`` has it; None where bare parameters were given.
    """

    parameter: torch.Tensor
    position: int
    name: str | None = None


class Gradients:
    """K gradient rows over the same parameters, without ever being concatenated unless a rule needs coordinates.

    Args:
        rows: K sequences of the same P tensors each. Row k is the gradient of objective ``objectives[k]``.
        objectives: the index of each row's objective among all ``total`` of them; a loss that is absent from a batch
            has no row. Default: all of them.
        total: the number of objectives of the problem. Default: the number of rows.
        scale: factor that the gradients carry (a GradScaler's). Norms, Gramian and Jacobian are free of it;
            :meth:`combined` keeps it, since its result goes to ``.grad``.
        factors: what each row is to be multiplied with to be that gradient, such as rows that are kept in few bits.
            Default: one each.
        places: which parameter each of the P tensors belongs to. Default: nobody knows.
        packed: tensors of the rows that lie in matrices. They are looked at together and not one by one, and ``rows``
            may hold None for them.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[torch.Tensor | None]],
        *,
        objectives: Sequence[int] | None = None,
        total: int | None = None,
        scale: float = 1.0,
        places: Sequence[Place] | None = None,
        factors: Sequence[float] | None = None,
        packed: Sequence[PackedTensors] = (),
    ) -> None:
        self._rows = rows
        self.packed = packed
        self.objectives = tuple(range(len(rows)) if objectives is None else objectives)
        self.total = len(rows) if total is None else total
        self.scale = scale
        self.places = places
        self.factors = None if factors is None or all(factor == 1.0 for factor in factors) else list(factors)
        self._in_double = False  # whether the Gramian is

    @classmethod
    def of(cls, jacobian: torch.Tensor, *, objectives: Sequence[int] | None = None, total: int | None = None) -> Self:
        """The rows of a (K, D) Jacobian, which is not copied."""
        packed = PackedTensors((0,), (jacobian.shape[1:],), jacobian)
        return cls([[row] for row in jacobian], objectives=objectives, total=total, packed=(packed,))

    @property
    def rows(self) -> Sequence[Sequence[torch.Tensor]]:
        """A tensor a parameter for each row."""
        if any(self._rows[0][part.positions[0]] is None for part in self.packed):
            rows = [list(row) for row in self._rows]
            for part in self.packed:
                for row, line in zip(rows, part.matrix, strict=True):
                    for position, view in zip(part.positions, cut_to_shapes(line, part.shapes), strict=True):
                        row[position] = view
            self._rows = rows
        return self._rows  # type: ignore[return-value]

    @cached_property
    def gramian(self) -> torch.Tensor:
        """J Jᵀ, (K, K) float64 on the CPU, exact to about 1e-7 of the norms in float32 at any D.

        Where the gradients are nearly dependent on each other it is exact to 1e-15, whatever their dtype.
        """
        products, self._in_double = gramian_of_blocks(self._blocks)
        if self.factors is None:
            return products if self.scale == 1.0 else products / self.scale**2
        factors = torch.tensor(self.factors, dtype=torch.float64) / self.scale
        return products * factors * factors[:, None]

    @property
    def precision(self) -> Precision:
        """How exactly the gradients and their inner products are known."""
        rows = max(torch.finfo(dtype).eps for dtype in set(self._dtypes(self._loose)))
        products = torch.float64 if self._in_double else torch.float32
        return Precision(rows, Precision.of(products).products)

    def jacobian(self) -> torch.Tensor:
        """J, (K, D), in the rows' dtype and on their device. Not to be written to: it may be the rows themselves."""
        if [p for part in self.packed for p in part.positions] == list(range(len(self._rows[0]))):
            matrix = self.packed[0].matrix if len(self.packed) == 1 else torch.cat([p.matrix for p in self.packed], 1)
        else:
            flat = [[g.reshape(-1) for g in row] for row in self.rows]
            matrix = torch.stack([row[0] if len(row) == 1 else torch.cat(row) for row in flat])
        factors = [factor / self.scale for factor in self.factors or [1.0] * len(matrix)]
        if all(factor == 1.0 for factor in factors):
            return matrix
        return matrix * torch.tensor(factors, dtype=torch.float64)[:, None].to(matrix)

    def combined(self, weights: torch.Tensor | Sequence[float], *, spend: bool = False) -> list[torch.Tensor]:
        """``sum_k weights[k] * row_k``, one new tensor a parameter, in the parameters' dtype (the rows' without them).

        With ``spend`` the rows are no longer wanted: big ones are written over where that is safe, and all are let go.
        """
        coefficients: list[float] = weights.tolist() if isinstance(weights, torch.Tensor) else list(weights)
        if self.factors is not None:
            coefficients = [c * factor for c, factor in zip(coefficients, self.factors, strict=True)]
        loose = self._loose
        wide = _wide(coefficients) or self._cancels(weights)
        if wide or any(dtype in _LOW_PRECISION for dtype in self._dtypes(loose)):
            dtype = torch.float64 if wide else torch.float32
            return [self._combined_in(dtype, p, coefficients) for p in range(len(self.rows[0]))]
        packed, rows = self.packed, self._rows
        if packed:
            rows = [[row[p] for p in loose] for row in rows]
        if spend:
            self.let_go()
        sums = _combined(rows, coefficients, spend) if loose else []  # type: ignore[arg-type]
        if not packed:
            return sums
        totals = [(part.positions, part.shapes, part.combined(coefficients)) for part in packed]
        del packed  # with ``spend`` nothing else holds the matrices
        found = dict(zip(loose, sums, strict=True))
        for positions, shapes, total in totals:
            pieces = [total.reshape(shapes[0])] if len(shapes) == 1 else cut_to_shapes(total, shapes)
            # copied, so that one that is kept does not keep them all, and in-place work on one does not reach another
            found.update(zip(positions, pieces if len(shapes) == 1 else [p.clone() for p in pieces], strict=True))
        return [found[position] for position in range(len(found))]

    def _cancels(self, weights: torch.Tensor | Sequence[float]) -> bool:
        """Whether what is added up nearly cancels, as far as the Gramian tells, if it was asked for."""
        if "gramian" not in self.__dict__:
            return False
        vector, products = np.asarray(weights, dtype=np.float64), self.gramian.numpy()
        added = float(np.abs(vector).dot(np.sqrt(products.diagonal())))
        return float(vector.dot(products).dot(vector)) < (_CANCELLING * added) ** 2

    def bound(self, weights: torch.Tensor | Sequence[float]) -> float:
        """What no entry of :meth:`combined` is larger than in modulus: ``sum_k |w_k| ||g_k||``."""
        norms = np.sqrt(self.gramian.numpy().diagonal())
        return float(np.abs(np.asarray(weights, dtype=np.float64)).dot(norms)) * self.scale

    def let_go(self) -> None:
        """Drop the rows. The Gramian stays, if it was asked for."""
        self._rows, self.packed = [[] for _ in self._rows], ()

    @property
    def _loose(self) -> Sequence[int]:
        """The positions of the tensors that lie in no matrix."""
        count = len(self._rows[0])
        if not self.packed:
            return range(count)
        if len(self.packed[0].positions) == count:
            return ()
        return sorted(set(range(count)).difference(*[part.positions for part in self.packed]))

    def _dtypes(self, loose: Sequence[int]) -> list[torch.dtype]:
        first = self._rows[0]
        return [*[first[p].dtype for p in loose], *[part.matrix.dtype for part in self.packed]]  # type: ignore[union-attr]

    def _blocks(self) -> Iterator[Block]:
        for part in self.packed:
            yield from torch.split(part.matrix, CHUNK, 1)
        loose = self._loose
        if loose:
            yield from _blocks([[row[p] for p in loose] for row in self._rows] if self.packed else self._rows)  # type: ignore[arg-type,misc]

    def with_gramian(self, gramian: torch.Tensor) -> Gradients:
        """The same rows, with other inner products for a rule that looks at these alone."""
        found = copy.copy(self)
        found.gramian = gramian
        return found

    def add_to(self, total: Sequence[torch.Tensor], weight: float) -> None:
        """Add ``weight`` times the only row to ``total``."""
        (row,) = self.rows
        weight *= 1.0 if self.factors is None else self.factors[0]
        if _wide([weight]):
            row, weight = [(g.double() * weight).to(t.dtype) for g, t in zip(row, total, strict=True)], 1.0
        torch._foreach_add_(list(total), list(row), alpha=weight)

    def _combined_in(self, dtype: torch.dtype, index: int, coefficients: list[float]) -> torch.Tensor:
        like = self.rows[0][index]
        total = torch.zeros_like(like, dtype=torch.promote_types(like.dtype, dtype))
        for row, coefficient in zip(self.rows, coefficients, strict=True):
            total.add_(row[index], alpha=coefficient)
        return total.to(like.dtype if self.places is None else self.places[index].parameter.dtype)


def _combined(rows: Sequence[Sequence[torch.Tensor]], coefficients: Sequence[float], spend: bool) -> list[torch.Tensor]:
    result = _scaled(rows[0], coefficients[0], spend)
    _add(result, rows[1:], coefficients[1:])
    return result


def _wide(coefficients: Sequence[float]) -> bool:
    """Whether a factor, for a very short or very long gradient, is beyond what float32 holds."""
    return any(not 1e-30 < abs(c) < 1e30 for c in coefficients if c != 0)


def _scaled(row: Sequence[torch.Tensor], coefficient: float, spend: bool) -> list[torch.Tensor]:
    """``coefficient`` times a row: new tensors, or big ones of the row itself when it may be spent."""
    if not spend or all(gradient.numel() < CHUNK for gradient in row):
        return list(torch._foreach_mul(list(row), coefficient))
    return [
        row[index].mul_(coefficient)
        if row[index].numel() >= CHUNK and is_held_alone(row, index)
        else row[index] * coefficient
        for index in range(len(row))
    ]


def _add(result: list[torch.Tensor], rows: Sequence[Sequence[torch.Tensor]], coefficients: Sequence[float]) -> None:
    """Add ``sum_k coefficients[k] * rows[k]`` to ``result``."""
    rest = []
    for index, total in enumerate(result):
        if total.numel() > CHUNK and total.is_cpu:
            parts = [row[index] for row in rows]
            if all(tensor.is_contiguous() for tensor in (total, *parts)):
                _add_in_chunks(total, parts, coefficients)
                continue
        rest.append(index)
    if len(rest) == len(result):
        for row, coefficient in zip(rows, coefficients, strict=True):
            torch._foreach_add_(result, list(row), alpha=coefficient)
    elif rest:
        totals = [result[index] for index in rest]
        for row, coefficient in zip(rows, coefficients, strict=True):
            torch._foreach_add_(totals, [row[index] for index in rest], alpha=coefficient)


def _add_in_chunks(total: torch.Tensor, parts: Sequence[torch.Tensor], coefficients: Sequence[float]) -> None:
    """The sum of one tensor, so that its columns stay in the cache while all rows are added."""
    target = total.view(-1)
    sources = [part.view(-1) for part in parts]
    for start in range(0, len(target), CHUNK):
        piece = target[start : start + CHUNK]
        for source, coefficient in zip(sources, coefficients, strict=True):
            piece.add_(source[start : start + CHUNK], alpha=coefficient)


def gramian_of(jacobian: torch.Tensor) -> torch.Tensor:
    """J Jᵀ of a (K, D) Jacobian: (K, K), float64, on the CPU.

    Products run over 1,024 columns each in the rows' own precision (float32 for 16-bit rows) and are summed in
    float64, so the error stays near 1e-7 of the norms whatever D; one float32 product loses 1e-3 at D = 1e7. Where
    float32 would underflow or overflow, or the rows are nearly dependent on each other, float64 is used throughout.
    """
    if jacobian.ndim != 2 or jacobian.shape[0] == 0:
        raise ValueError(f"jacobian must have shape (K, D) with K >= 1, found {tuple(jacobian.shape)}")
    return gramian_of_blocks(lambda: iter(torch.split(jacobian, CHUNK, dim=1)))[0]


def gramian_of_blocks(blocks: BlockSource) -> tuple[torch.Tensor, bool]:
    """The sum of ``B @ B.T`` over column blocks ``B``, and whether all of it was multiplied in float64.

    ``blocks()`` starts the iteration anew.
    """
    gramian, in_double = _sum_of_products(blocks(), exact=False)
    if in_double or not _needs_double(gramian):
        return gramian, in_double
    return _sum_of_products(blocks(), exact=True)


def _needs_double(gramian: torch.Tensor) -> bool:
    """Whether float32 products leave the norms, or how the gradients depend on each other, undecided."""
    squares = gramian.numpy().diagonal().tolist()
    # A float32 square is exact enough between these bounds. A zero may be one, or an underflow; infinity may be
    # the row's or an overflow.
    if not all(1e-20 <= square < 1e30 for square in squares):
        return True
    if len(squares) <= 2:
        return len(squares) == 2 and squares[0] * squares[1] * (1.0 - _DEPENDENT) < gramian.tolist()[0][1] ** 2
    matrix = gramian.numpy()
    if not np.isfinite(matrix).all():
        return True
    factor, failed = load_lapack().dpotrf(normalize_gramian(matrix)[0])
    return bool(failed) or float(factor.diagonal().min()) ** 2 < _DEPENDENT


def _sum_of_products(blocks: Iterator[Block], *, exact: bool) -> tuple[torch.Tensor, bool]:
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
        if torch.is_autocast_enabled(kind):  # asked first: entering the context takes its time
            with torch.autocast(kind, enabled=False):
                products.append(_product(block, in_double))
        else:
            products.append(_product(block, in_double))
    if len(products) == 1:
        return products[0].cpu(), all_double
    devices: dict[torch.device, list[torch.Tensor]] = {product.device: [] for product in products}
    for product in products:
        devices[product.device].append(product)
    totals = [torch.stack(found).sum(0).cpu() for found in devices.values()]  # one transfer a device
    return totals[0] if len(totals) == 1 else torch.stack(totals).sum(0), all_double


def _product(block: Block, in_double: bool) -> torch.Tensor:
    if isinstance(block, tuple):
        if not in_double:
            return _product_of_two(*block)
        parts = zip(*[torch.split(row, CHUNK) for row in block], strict=True)
        return torch.stack([_product(torch.stack(part), True) for part in parts]).sum(0)
    if in_double or block.dtype == torch.float64:
        block = block.double()
        return block @ block.T
    return _product_in_float32(block.float())


def _product_in_float32(block: torch.Tensor) -> torch.Tensor:
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


def _product_of_two(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
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


def _blocks(rows: Sequence[Sequence[torch.Tensor]]) -> Iterator[Block]:
    """Column blocks (K, n <= CHUNK) of the rows: big tensors are cut, small neighbours are joined.

    A block holds until the next one is asked for: those that are cut lie in one place. A new place for each would leave
    holes in the heap, since the products come to lie between them: up to a whole Jacobian, which the heap keeps.
    """
    window: torch.Tensor | None = None
    pending: list[int] = []
    columns = 0
    for index, tensor in enumerate(rows[0]):
        size = tensor.numel()
        if columns + size > CHUNK or (pending and not _alike(tensor, rows[0][pending[0]])):
            if pending:
                yield _joined(rows, pending)
            pending, columns = [], 0
        if size > CHUNK:
            flat = [row[index].reshape(-1) for row in rows]
            if len(flat) == 2 and tensor.is_cpu and tensor.dtype == torch.float32:
                yield flat[0], flat[1]
                continue
            if window is None or not _alike(window, tensor):
                window = tensor.new_empty(len(rows) * CHUNK)
            for start in range(0, size, CHUNK):
                pieces = [f[start : start + CHUNK] for f in flat]
                yield torch.stack(pieces, out=window[: len(rows) * len(pieces[0])].view(len(rows), -1))
        else:
            pending.append(index)
            columns += size
    if pending:
        yield _joined(rows, pending)


def _alike(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    return tensor.dtype == other.dtype and tensor.device == other.device


def _joined(rows: Sequence[Sequence[torch.Tensor]], indices: list[int]) -> torch.Tensor:
    """Some tensors of each row, one after the other, and zeros up to whole segments where there are several."""
    columns = sum([rows[0][i].numel() for i in indices])
    missing = -columns % SEGMENT if columns > SEGMENT else 0
    filling = [rows[0][indices[0]].new_zeros(missing)] if missing else []
    pieces = []
    for row in rows:
        pieces += [row[i].reshape(-1) for i in indices]
        pieces += filling
    return torch.cat(pieces).view(len(rows), -1)
