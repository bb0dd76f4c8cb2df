"""Whether all entries of many tensors are finite, and how large they are."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch

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
    by_device: dict[torch.device, list[torch.Tensor]] = {}
    for tensor in map(entries_of, tensors):
        if tensor.numel():
            by_device.setdefault(tensor.device, []).append(tensor)
    found = [torch._foreach_norm(group, math.inf) for group in by_device.values()]
    return sum(float(torch.stack([norm.double() for norm in norms]).max()) for norms in found)  # a max may lose a NaN


def _sum(held: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
    dense_first = held + added if held.layout == torch.strided else added + held
    return dense_first.to(held.dtype)


def entries_of(tensor: torch.Tensor) -> torch.Tensor:
    """The entries of a tensor, those that are not zero of a sparse one, both parts of complex ones."""
    dense = tensor.detach() if tensor.layout == torch.strided else tensor.detach().coalesce().values()
    return torch.view_as_real(dense.resolve_conj()) if dense.is_complex() else dense
