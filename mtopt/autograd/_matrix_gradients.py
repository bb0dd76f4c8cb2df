"""The K gradients of one matrix by their factors: inner products and a weighted sum, without the gradients themselves.

With X (N, m) the inputs, the same for all losses, and E_k (N, n) the output gradients of loss k, g_k = E_k' X and

    <g_k, g_l> = <E_k, (X X') E_l>            sum_k w_k g_k = (sum_k w_k E_k)' X

A matrix that is used several times has the positions of all uses side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch

from mtopt.autograd._layer_gramians import BLOCK, TRAFFIC, multiply_positions
from mtopt.autograd._matrix_uses import MatrixUse
from mtopt.linalg import SEGMENT, exceed_float32, gramian_of

Way = Literal["products", "dropped", "kept"]
"""The K gradients of a matrix are never made; made some rows at a time, multiplied and dropped; or kept."""

STRIPS = 8
"""The products X X' are symmetric, and made in this many strips, each from the diagonal on; none of fewer rows than"""
FEWEST = 64

STRIPPED = 4 / 3
"""The time of a multiplication in the products of a strip, over that of one in a gradient, which is a larger matrix:
measured on one core."""

TOUCHED_BY_PRODUCTS, TOUCHED_BY_DROPPED, TOUCHED_BY_KEPT, TOUCHED_BY_GATHERING = 6, 2, 3, 16
"""How often each number of the K output gradients, of the K gradients, and of a convolution's patches, is written or
read: measured on one core."""


@dataclass(frozen=True, slots=True)
class MatrixCosts:
    """Multiplications for the gradients of one matrix, a number's way to and from memory counted as ``TRAFFIC``.

    With N positions, inputs of m and outputs of n numbers, and b the rows of a strip:

    - products: ``N (N + b) / 2 (m + K n)`` of positions, each counted as ``STRIPPED``, ``K² N n`` of outputs, and
      ``N m n`` for the direction;
    - dropped: ``K N m n`` for the gradients, ``K² m n`` for their products, and ``N m n`` for the direction;
    - kept: ``K N m n`` and ``K² m n``, and the traffic of K whole gradients.

    Where the inputs are unit vectors, as an embedding's, the outputs of equal ones are added up, and no pair of
    positions is left to multiply; gradients are never dropped.

    Attributes:
        activations: of a forward, and of each pass to the inputs: the same whichever way is taken.
    """

    products: float
    dropped: float
    kept: float
    activations: float

    @classmethod
    def of(cls, uses: Sequence[MatrixUse], count: int) -> MatrixCosts:
        positions, entries = sum(use.positions for use in uses), uses[0].width * uses[0].height
        width, height = (1 if uses[0].indexed else uses[0].width), uses[0].height
        outputs, gradient = positions * height, positions * width * height
        strip = _strip(positions)
        pairs = positions * (positions + strip) / 2
        gathered = sum(use.gathered for use in uses) * TOUCHED_BY_GATHERING
        direction = gradient + TRAFFIC * (entries + gathered)
        products: float = count * outputs * (count + TOUCHED_BY_PRODUCTS * TRAFFIC)
        if not uses[0].indexed:
            products += STRIPPED * pairs * (width + count * height)
        rows = count * gradient + count**2 * entries
        return cls(
            products + direction,
            inf if uses[0].indexed else rows + direction + count * entries * TOUCHED_BY_DROPPED * TRAFFIC,
            rows + count * entries * TOUCHED_BY_KEPT * TRAFFIC,
            0.0 if uses[0].indexed else float(gradient),
        )

    def cheapest(self, *, keep: bool = True) -> Way:
        """The way that takes the least; without ``keep``, of the two that keep no gradients."""
        if keep and self.kept <= min(self.products, self.dropped):
            return "kept"
        return "products" if self.products <= self.dropped else "dropped"

    def __getitem__(self, way: Way) -> float:
        return float(getattr(self, way))


class MatrixGradients:
    """The factors of K gradients of a parameter: ``inputs`` X (N, m), or different integers (N,) for unit vectors, and
    ``outputs`` E (N, K, n), of these uses."""

    def __init__(self, inputs: torch.Tensor, outputs: torch.Tensor, uses: Sequence[MatrixUse], way: Way) -> None:
        self.inputs, self.outputs, self.way = inputs, outputs, way
        self.indexed, self.transposed, self.width = uses[0].indexed, uses[0].transposed, uses[0].width

    @classmethod
    def of(
        cls,
        uses: Sequence[MatrixUse],
        cotangents: Sequence[Sequence[torch.Tensor | None]],
        way: Way,
        dtype: torch.dtype,
    ) -> MatrixGradients:
        """Of a parameter of this dtype.

        ``cotangents``: for each use the gradient of each loss by the result, None of one that does not reach it.
        """
        inputs = _joined([use.inputs() for use in uses])
        outputs = _joined([use.side_by_side(found, dtype) for use, found in zip(uses, cotangents, strict=True)])
        if not uses[0].indexed:
            return cls(inputs.to(outputs.dtype), outputs, uses, way)
        places, which = torch.unique(inputs, return_inverse=True)
        total = outputs.new_zeros(len(places), *outputs.shape[1:]).index_add_(0, which, outputs)
        return cls(places, total, uses, way)

    @property
    def in_double(self) -> bool:
        """Whether inner products are taken in float64, asked for or not."""
        return self.outputs.dtype == torch.float64

    def gramian(self, *, exact: bool = False) -> torch.Tensor:
        """(K, K), float64 on the CPU; ``exact``: all of it in float64."""
        if self.indexed:
            return self._by_places(exact)
        return self._by_gradients(exact) if self.way == "dropped" else self._by_products(exact)

    def combined(self, weights: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """``sum_k weights[k] g_k``, of the shape and dtype of the parameter ``like``."""
        outputs = _in_double(self.outputs, exceed_float32(weights.tolist()))
        outputs = (weights.to(outputs) @ outputs).to(self.outputs.dtype)
        if self.indexed:
            total = outputs.new_zeros(self.width, outputs.shape[1]).index_add_(0, self.inputs, outputs)
        elif self.transposed:
            total = self.inputs.T @ outputs
        else:
            total = outputs.T @ self.inputs
        return total.reshape(like.shape).to(like)

    def _by_products(self, exact: bool) -> torch.Tensor:
        positions, count, height = self.outputs.shape
        total = self.outputs.new_zeros(count, count, dtype=torch.float64)
        strip = min(_strip(positions), max(1, 4 * BLOCK // max(positions, count * height)))
        for start in range(0, positions, strip):
            stop = min(start + strip, positions)
            outputs = _in_double(self.outputs[start:stop], exact)
            between = self._similarity(start, stop, exact).to(outputs.dtype)
            between[:, : stop - start] *= 0.5  # the others stand for two each
            seen = _product(between, self.outputs[start:].flatten(1)).view(stop - start, count, height)
            for first in range(0, height, SEGMENT):
                columns = slice(first, first + SEGMENT)
                found = torch.bmm(seen[..., columns], outputs[..., columns].mT)
                total += found.sum(0, dtype=torch.float64)
        return (total + total.T).cpu()

    def _similarity(self, start: int, stop: int, exact: bool) -> torch.Tensor:
        """The products of some inputs with those from the first of them on; copies of them are gone afterwards."""
        mine, others = self.inputs[start:stop], self.inputs[start:]
        return multiply_positions(_in_double(mine, exact).unsqueeze(1), _in_double(others, exact).unsqueeze(1))

    def _by_places(self, exact: bool) -> torch.Tensor:
        """Of unit vectors, which are all different: the outputs are the rows of the gradients that are not zero."""
        _, count, height = self.outputs.shape
        parts = torch.split(self.outputs, max(1, BLOCK // (count * height)))
        total = torch.zeros(count, count, dtype=torch.float64)
        for part in parts:
            total += gramian_of(_in_double(part, exact).transpose(0, 1).reshape(count, -1))
        return total

    def _by_gradients(self, exact: bool) -> torch.Tensor:
        _, count, height = self.outputs.shape
        total = torch.zeros(count, count, dtype=torch.float64)
        inputs = _in_double(self.inputs, exact)
        rows = max(1, BLOCK // (count * self.width))
        for start in range(0, height, rows):
            outputs = _in_double(self.outputs[:, :, start : start + rows], exact)
            total += gramian_of((outputs.flatten(1).T @ inputs).view(count, -1))
        return total


def _strip(positions: int) -> int:
    return min(positions, max(FEWEST, -(-positions // STRIPS)))


def _in_double(tensor: torch.Tensor, exact: bool) -> torch.Tensor:
    """``tensor`` in float64 where that is asked for, or where products in float32 may be rounded to less."""
    return tensor.double() if exact or torch.get_float32_matmul_precision() != "highest" else tensor


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """``left @ right`` in the precision of ``left``, without a copy of the whole of ``right`` in it."""
    if left.dtype == right.dtype:
        return left @ right
    return torch.cat([left @ part.to(left) for part in torch.split(right, max(1, BLOCK // len(right)), 1)], 1)


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
