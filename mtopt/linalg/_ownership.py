"""Whether a tensor that autograd handed out may be written to."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch

Counts = tuple[int, ...]


def is_held_alone(tensors: Sequence[torch.Tensor], index: int) -> bool:
    """Whether nothing but ``tensors`` refers to its tensor ``index`` and to the memory, which it fills in order.

    Autograd may hand out one tensor for two parameters, an expanded one, or whatever a custom function returned:
    in-place work on these would reach others. Every reference is counted, from Python or not; where this PyTorch has
    no such counts the answer is no.
    """
    if not _COUNTED or _references(tensors, index) not in _ALONE:
        return False
    tensor = tensors[index]  # a name is a reference, and those are counted
    return tensor.is_contiguous() and _fills_memory(tensor)


def _fills_memory(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def _references(tensors: Sequence[torch.Tensor], index: int) -> Counts:
    """References to a tensor, to its memory, and to the tensor that it is a view of."""
    tensor = tensors[index]
    base = tensor._base if tensor._is_view() else None
    holders = torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)
    counts = (sys.getrefcount(tensor), tensor._use_count(), holders)  # type: ignore[attr-defined]
    return counts if base is None else (*counts, sys.getrefcount(base), base._use_count())  # type: ignore[attr-defined]


def _calibrated() -> set[Counts]:
    """The counts of tensors that only a list holds, in this Python and this PyTorch: its own, and the view of one."""
    tensors = [torch.empty(1), torch.empty(1, 1).t(), torch.empty(1).view(1, 1).view(1)]
    return {_references(tensors, index) for index in range(len(tensors))}


_COUNTED = hasattr(torch.Tensor, "_use_count") and hasattr(torch._C, "_storage_Use_Count")
_ALONE = _calibrated() if _COUNTED else set()


def copy_unless_alone(gradient: torch.Tensor, taken: set[int]) -> torch.Tensor:
    """``gradient`` with memory of its own, which is not among what is ``taken`` and now is.

    Autograd may hand out the same or an expanded tensor twice.
    """
    if gradient.layout != torch.strided:
        return gradient
    memory = gradient.untyped_storage().data_ptr()
    alone = memory not in taken and _fills_memory(gradient)
    taken.add(memory)
    return gradient if alone else gradient.clone(memory_format=torch.contiguous_format)


def takes_writes(gradient: torch.Tensor) -> bool:
    """Whether there is a place for each entry: not in a sparse tensor, nor in one that was expanded."""
    if gradient.layout != torch.strided or gradient.is_inference():
        return False
    if gradient.is_contiguous():
        return True
    reach = sum((size - 1) * stride for size, stride in zip(gradient.shape, gradient.stride(), strict=True))
    return reach + 1 >= gradient.numel()
