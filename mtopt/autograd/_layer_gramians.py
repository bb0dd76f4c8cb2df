"""Inner products between the samples' gradients of one parameter, from its parts.

Two ways lead from factors to the Gramian; operations and memory traffic are counted, the cheaper one is taken:

- products of positions, ``G[i, j] = sum_{t, s} <left[i, t], left[j, s]> <right[i, t], right[j, s]>``: the gradients are
  never made, B² T² (m + n) operations;
- the gradients (B, m n) of this parameter alone, some rows of the matrix at a time: B T m n + B² m n operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from mtopt.autograd._layer_parts import Factors, Part
from mtopt.linalg import SEGMENT, gramian_of

BLOCK = 1 << 20
"""Numbers made at a time: 4 MiB in float32."""

TRAFFIC = 8
"""Multiplications in the time that one number takes to and from memory, about: measured on one CPU core."""

TOUCHED_BY_PRODUCTS, TOUCHED_BY_GRADIENTS = 12, 3
"""How often each number of an intermediate result is written or read, small calls' overhead included."""


@contextmanager
def plain_arithmetic(losses: torch.Tensor) -> Iterator[None]:
    """Without a graph, and without the short numbers of an autocast around the step."""
    with torch.no_grad(), torch.autocast(losses.device.type, enabled=False):
        yield


def gramian_of_parts(parts: Sequence[Part]) -> torch.Tensor:
    """(B, B), float64 on the CPU, of the sum of ``parts``: all uses of one parameter, cross terms included."""
    factors = [part for part in parts if isinstance(part, Factors)]
    if len(factors) < len(parts):
        return gramian_of(sum_of_parts(parts))
    factors = _joined(factors)
    if products_are_cheaper(factors):
        return _by_products(factors)
    height, width = factors[0].height, factors[0].right.shape[2]
    rows = max(1, BLOCK // (len(factors[0].right) * width))
    gramian = torch.zeros((), dtype=torch.float64)
    for start in range(0, height, rows):
        gramian = gramian + gramian_of(_gradients(factors, start, min(start + rows, height)))
    return gramian


def sum_of_parts(parts: Sequence[Part]) -> torch.Tensor:
    """The gradients (B, numel) themselves."""
    dense = [_gradients([part], 0, part.height) if isinstance(part, Factors) else part for part in parts]
    return dense[0] if len(dense) == 1 else torch.stack(dense).sum(0)


def products_are_cheaper(factors: Sequence[Factors]) -> bool:
    """Whether products of positions cost less than the gradients of this parameter."""
    batch, _, width = factors[0].right.shape
    height = factors[0].height
    positions = sum(part.right.shape[1] for part in factors)
    dense = sum(part.right.shape[1] for part in factors if not part.is_indexed)
    pairs = (batch * positions) ** 2 / 2  # the Gramian is symmetric
    products = pairs * (width + (height if dense else 1) + TOUCHED_BY_PRODUCTS * TRAFFIC)
    numbers = batch * height * width
    gradients = numbers * (dense + batch + TOUCHED_BY_GRADIENTS * TRAFFIC)
    return products <= gradients


def _joined(factors: Sequence[Factors]) -> list[Factors]:
    """A use of a parameter adds positions to those of the others: the same kind of factors are put side by side."""
    joined = []
    for indexed in (False, True):
        same = [part for part in factors if part.is_indexed == indexed]
        if len(same) == 1:
            joined += same
        elif same:
            left, right = torch.cat([part.left for part in same], 1), torch.cat([part.right for part in same], 1)
            joined.append(Factors(left, right, same[0].height))
    return joined


def _gradients(factors: Sequence[Factors], start: int, stop: int) -> torch.Tensor:
    """Rows ``start`` to ``stop`` of the matrix in every sample's gradient: (B, (stop - start) * n)."""
    found = [
        _scattered(part, start, stop) if part.is_indexed else part.left[:, :, start:stop].mT @ part.right
        for part in factors
    ]
    return (found[0] if len(found) == 1 else torch.stack(found).sum(0)).flatten(1)


def _scattered(part: Factors, start: int, stop: int) -> torch.Tensor:
    batch, _, width = part.right.shape
    inside = (part.left >= start) & (part.left < stop)
    first = torch.arange(batch, device=part.left.device).unsqueeze(1) * (stop - start)
    places = (first + part.left - start)[inside]
    result = part.right.new_zeros(batch * (stop - start), width)
    return result.index_add_(0, places, part.right[inside]).view(batch, stop - start, width)


# -- products of positions ----------------------------------------------------------------------------------------


def _by_products(factors: Sequence[Factors]) -> torch.Tensor:
    if len(factors) == 1 and factors[0].right.shape[1] == 1 and not factors[0].is_indexed:
        return gramian_of(factors[0].left[:, 0]) * gramian_of(factors[0].right[:, 0])
    # Squares of float32 numbers leave its range early: every sample is brought to numbers of at most one.
    right_scale = _largest([part.right for part in factors])
    lefts = [part.left for part in factors if not part.is_indexed]
    left_scale = _largest(lefts) if lefts else torch.ones_like(right_scale)
    scale = left_scale.double().cpu() * right_scale.double().cpu()
    scaled = []
    for part in factors:
        right = part.right / right_scale[:, None, None]
        if part.is_indexed:  # its left is a one, which cannot be divided
            scaled.append(Factors(part.left, right / left_scale[:, None, None], part.height))
        else:
            scaled.append(Factors(part.left / left_scale[:, None, None], right, part.height))
    gramian = torch.zeros(len(scale), len(scale), dtype=torch.float64)
    for index, part in enumerate(scaled):
        gramian += _symmetric(part)
        for other in scaled[index + 1 :]:
            cross = _pairs(part, other, 0, len(scale), 0)
            gramian += cross + cross.T
    return gramian * scale * scale[:, None]


def _largest(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Of each sample's magnitudes, (B,); one for a sample of zeros."""
    largest = torch.stack([tensor.abs().amax((1, 2)) for tensor in tensors]).amax(0)
    return torch.where(largest > 0, largest, 1.0)


def _symmetric(part: Factors) -> torch.Tensor:
    """The products of a part with itself, those of sample i with the samples from i's block on."""
    batch, positions, _ = part.right.shape
    block = max(1, min(-(-batch // 4), BLOCK // (positions * batch * positions)))
    result = torch.zeros(batch, batch, dtype=torch.float64)
    for start in range(0, batch, block):
        stop = min(start + block, batch)
        products = _pairs(part, part, start, stop, start)
        result[start:stop, start:] = products
        result[start:, start:stop] = products.T
    return result


def _pairs(first: Factors, second: Factors, start: int, stop: int, others: int) -> torch.Tensor:
    """Products of ``first``'s samples ``start`` to ``stop`` with ``second``'s from ``others`` on."""
    result = []
    batch, positions = second.right.shape[:2]
    block = max(1, BLOCK // (first.right.shape[1] * batch * positions))
    for begin in range(start, stop, block):
        end = min(begin + block, stop)
        products = multiply_positions(first.right[begin:end], second.right[others:])
        products *= _left_inner(first, second, begin, end, others)
        shape = (end - begin, first.right.shape[1], batch - others, positions)
        result.append(products.view(shape).sum((1, 3), dtype=torch.float64).cpu())
    return torch.cat(result)


def _left_inner(first: Factors, second: Factors, begin: int, end: int, others: int) -> torch.Tensor:
    mine, theirs = first.left[begin:end], second.left[others:]
    if first.is_indexed:  # then both are: those that are not come first
        return mine.reshape(-1, 1) == theirs.reshape(1, -1)
    if second.is_indexed:
        return mine.flatten(0, 1)[:, theirs.flatten()]
    return multiply_positions(mine, theirs)


def multiply_positions(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Products of all positions of (b, T, n) with those of (c, S, n): (b T, c S)."""
    first, second = first.flatten(0, 1), second.flatten(0, 1)
    width = first.shape[1]
    if torch.get_float32_matmul_precision() != "highest":  # allowed for the model, not here
        return first.double() @ second.double().T
    if width <= SEGMENT:
        return first @ second.T
    total = torch.zeros(len(first), len(second), dtype=torch.float64, device=first.device)
    for start in range(0, width, SEGMENT):
        total += first[:, start : start + SEGMENT] @ second[:, start : start + SEGMENT].T
    return total
