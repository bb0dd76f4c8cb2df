"""What the entries of many tensors come to: whether all are finite, how large they are, how long they are together."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence

import torch

from mtopt.linalg._sizes import CHUNK

_JOINED = 8_192
"""Entries of a tensor that is copied to one place with others rather than looked at by itself."""


def are_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether no entry of the tensors is NaN or infinite."""
    kinds: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for tensor in map(entries_of, tensors):
        kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return all(_are_finite(found, torch.promote_types(dtype, torch.float32)) for (_, dtype), found in kinds.items())


def _are_finite(tensors: Sequence[torch.Tensor], wide: torch.dtype) -> bool:
    # A finite sum has finite terms, and is the fastest to come by. Another may be an overflow.
    small = [tensor.reshape(-1) for tensor in tensors if tensor.numel() <= _JOINED]
    sums = [tensor.sum(dtype=wide) for tensor in tensors if tensor.numel() > _JOINED]
    if small:
        sums.append(torch.cat(small).sum(dtype=wide))
    total = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
    return math.isfinite(float(total)) or all(bool(tensor.isfinite().all()) for tensor in tensors)


@functools.cache
def finite_limit(dtype: torch.dtype) -> float:
    """Below this a bound that is itself rounded proves that numbers are finite."""
    return 0.25 * torch.finfo(dtype).max


def sums_are_finite(added: Sequence[tuple[torch.Tensor, torch.Tensor, float]]) -> bool:
    """Whether each first tensor plus its second is finite in the first one's dtype.

    The third is what no entry of the second is larger than; infinity where nobody knows.
    """
    if not added:
        return True
    limit = min(finite_limit(held.dtype) for held, _, _ in added)
    known = max((bound for _, _, bound in added if math.isfinite(bound)), default=0.0)
    unknown = [tensor for _, tensor, bound in added if not math.isfinite(bound)]
    if _largest([held for held, _, _ in added]) + known + _largest(unknown) < limit:
        return True
    return all(bool(entries_of(_sum(held, tensor)).isfinite().all()) for held, tensor, _ in added)


def _largest(tensors: Sequence[torch.Tensor]) -> float:
    """What no modulus of an entry is larger than; NaN or infinity where there is one."""
    groups = by_device([tensor for tensor in map(entries_of, tensors) if tensor.numel()])
    found = [torch._foreach_norm(group, math.inf) for group in groups]
    return sum(float(torch.stack([norm.double() for norm in norms]).max()) for norms in found)  # a max may lose a NaN


def _sum(held: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    dense_first = held + added if held.layout == torch.strided else added + held
    return dense_first.to(held.dtype)


def norm_of(tensors: Iterable[torch.Tensor]) -> float:
    """``sqrt(sum of all squares)`` of all the entries of ``tensors``, of any dtypes, on any devices.

    Squares are added in float64: relative to the exact norm the error is near 1e-14 whatever the number of entries,
    where a sum in float32 is off by 1e-2 at 25 million equal ones; and no square over- or underflows. NaN and infinity
    pass. Entries that a sparse tensor does not hold are zero.
    """
    parts = _parts(tensors)
    square = _square(parts)
    if 1e-280 < square < 1e280 or math.isnan(square):
        return math.sqrt(square)
    largest = max((float(part.abs().max()) for part in parts), default=0.0)
    if not 0.0 < largest < math.inf:
        return largest
    return largest * math.sqrt(_square([part.double() / largest for part in parts]))


def _square(parts: Sequence[torch.Tensor]) -> float:
    # in pieces that fit in a cache: a processor makes a float64 copy of what it is given
    pieces = [piece for part in parts for piece in (torch.split(part, CHUNK) if part.is_cpu else [part])]
    squares = [torch.linalg.vector_norm(piece, dtype=torch.float64).square() for piece in pieces]
    return sum(float(torch.stack(found).sum()) for found in by_device(squares))  # one transfer a device


def _parts(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """The entries as vectors: each large tensor by itself, the small ones of a kind in one."""
    found: list[torch.Tensor] = []
    small: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
    for tensor in tensors:
        flat = entries_of(tensor).reshape(-1)
        if len(flat) > CHUNK:
            found.append(flat)
        elif len(flat):
            small.setdefault((flat.dtype, flat.device), []).append(flat)
    return found + [torch.cat(flats) for flats in small.values()]


def by_device(tensors: Iterable[torch.Tensor]) -> Iterable[list[torch.Tensor]]:
    found: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in tensors:
        found.setdefault(tensor.device, []).append(tensor)
    return found.values()


def entries_of(tensor: torch.Tensor) -> torch.Tensor:
    """The entries of a tensor, those that are not zero of a sparse one, both parts of complex ones."""
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().coalesce().values()
    return torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense
