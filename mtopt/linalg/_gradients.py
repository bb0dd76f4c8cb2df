"""The K gradients of one step, and what rules ask of them: norms, Gramian, Jacobian, combinations."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, NoReturn, Self

import numpy as np
import torch

from mtopt.linalg._combination import PackedTensors, add_up, cut_to_shapes, exceed_float32
from mtopt.linalg._inner_products import Block, cut_into_blocks, sum_products
from mtopt.linalg._precision import Precision
from mtopt.linalg._sizes import CHUNK

_LOW_PRECISION = (torch.float16, torch.bfloat16)

_CANCELLING = 1e-2
"""A combination shorter than this share of the lengths added up is summed in float64."""


class Place(NamedTuple):
    """Where a tensor of a gradient belongs: the parameter that the loss was differentiated by, its position among those
    given to the step, frozen ones included, and its name, where ``named_parameters()`` were given."""

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
        products, self._in_double = sum_products(self._blocks)
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
        wide = exceed_float32(coefficients) or self._cancels(weights)
        if wide or any(dtype in _LOW_PRECISION for dtype in self._dtypes(loose)):
            dtype = torch.float64 if wide else torch.float32
            return [self._combined_in(dtype, p, coefficients) for p in range(len(self.rows[0]))]
        packed, rows = self.packed, self._rows
        if packed:
            rows = [[row[p] for p in loose] for row in rows]
        if spend:
            self.let_go()
        sums = add_up(rows, coefficients, spend) if loose else []  # type: ignore[arg-type]
        if not packed:
            return sums
        totals = [(part.positions, part.shapes, part.combined(coefficients)) for part in packed]
        del packed  # with ``spend`` nothing else holds the matrices
        found = dict(zip(loose, sums, strict=True))
        for positions, shapes, total in totals:
            pieces = cut_to_shapes(total, shapes)
            if len(pieces) > 1:  # one that is kept must not keep them all, nor in-place work on it reach another
                pieces = [piece.clone() for piece in pieces]
            found.update(zip(positions, pieces, strict=True))
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
            yield from cut_into_blocks([[row[p] for p in loose] for row in self._rows] if self.packed else self._rows)  # type: ignore[arg-type,misc]

    def with_gramian(self, gramian: torch.Tensor) -> Gradients:
        """The same rows, with other inner products for a rule that looks at these alone."""
        found = copy.copy(self)
        found.gramian = gramian
        return found

    def with_rows(self, rows: Sequence[Sequence[torch.Tensor]]) -> Gradients:
        """The same gradients, of which more columns are at hand."""
        found = copy.copy(self)
        found._rows, found.packed = rows, ()
        return found

    def joined(self, gramian: torch.Tensor, *, in_double: bool) -> Gradients:
        """The same rows, where the gradients have other coordinates, too, whose inner products are ``gramian``."""
        found = self.with_gramian(self.gramian + gramian)
        found._in_double = self._in_double and in_double
        return found

    def add_to(self, total: Sequence[torch.Tensor], weight: float) -> None:
        """Add ``weight`` times the only row to ``total``."""
        (row,) = self.rows
        weight *= 1.0 if self.factors is None else self.factors[0]
        if exceed_float32([weight]):
            row, weight = [(g.double() * weight).to(t.dtype) for g, t in zip(row, total, strict=True)], 1.0
        torch._foreach_add_(list(total), list(row), alpha=weight)

    def _combined_in(self, dtype: torch.dtype, index: int, coefficients: list[float]) -> torch.Tensor:
        like = self.rows[0][index]
        total = torch.zeros_like(like, dtype=torch.promote_types(like.dtype, dtype))
        for row, coefficient in zip(self.rows, coefficients, strict=True):
            total.add_(row[index], alpha=coefficient)
        # of a complex parameter the gradients are pairs of reals
        return total.to(like.dtype if self.places is None else self.places[index].parameter.dtype.to_real())


class InnerProducts(Gradients):
    """K gradients that were never made as a whole: nothing but their Gramian (K, K), free of any scale, is known.

    ``dtype`` is that of the least exact numbers they would be made of, by which a rule judges what is noise;
    ``in_double``: their products were taken in float64. ``scale`` is that of what is written in the end.
    """

    def __init__(
        self,
        gramian: torch.Tensor,
        dtype: torch.dtype,
        *,
        objectives: Sequence[int] | None = None,
        total: int | None = None,
        places: Sequence[Place] | None = None,
        scale: float = 1.0,
        in_double: bool = False,
    ) -> None:
        empty = torch.empty(0, dtype=dtype)
        super().__init__([[empty] for _ in gramian], objectives=objectives, total=total, places=places, scale=scale)
        self.gramian = gramian
        self._in_double = in_double

    def jacobian(self) -> NoReturn:
        """There is none."""
        raise TypeError("these gradients are never made, only their inner products are known")

    def combined(self, weights: torch.Tensor | Sequence[float], *, spend: bool = False) -> NoReturn:
        """There is nothing to combine: a weighted backward makes the sum."""
        self.jacobian()


def rescale_rows(gradients: Gradients, factors: torch.Tensor) -> Gradients:
    """The rows ``factors[k] g_k``, free of a GradScaler's factor; those of 16 bits become float32."""
    if gradients.factors is not None:
        factors = factors * torch.tensor(gradients.factors, dtype=torch.float64)
    rows = []
    for row, factor in zip(gradients.rows, (factors / gradients.scale).tolist(), strict=True):
        # in float64, since the factor of a short row may be too large for float32
        products = ((tensor.double() * factor).to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in row)
        rows.append(list(products))
    return Gradients(rows, objectives=gradients.objectives, total=gradients.total, places=gradients.places)
