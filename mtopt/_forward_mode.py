"""Differentiating forwards: kernels that have the formulas, dual tensors, and memory that is kept for tangents."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

_kept: WeakKeyDictionary[nn.Module, dict[str, torch.Tensor]] = WeakKeyDictionary()


def scratch_like(model: nn.Module, params: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """A tensor like each parameter, to be written to; on a CPU the same ones in every step, as long as the model lives.

    New memory of this size comes from the operating system page by page, a tenth of a step of a wide model.
    """
    kept = _kept.setdefault(model, {})
    found = []
    for name, param in params.items():
        tensor = kept.get(name)
        if tensor is None or (tensor.shape, tensor.dtype, tensor.device) != (param.shape, param.dtype, param.device):
            tensor = torch.empty_like(param.detach())
            if param.device.type == "cpu":
                kept[name] = tensor
        found.append(tensor)
    return found


@contextmanager
def forward_kernels(model: nn.Module) -> Iterator[None]:
    """Kernels that have a forward-mode formula, in place of faster ones that lack it."""
    fast = torch.backends.mha.get_fastpath_enabled()
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    backends: list[Any] = [torch.backends.mkldnn, torch.backends.cudnn] if recurrent else []
    enabled = [backend.enabled for backend in backends]
    torch.backends.mha.set_fastpath_enabled(False)
    for backend in backends:
        backend.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for backend, was in zip(backends, enabled, strict=True):
            backend.enabled = was


@functools.cache
def load_formulas() -> None:
    """What torch loads at the first forward-mode product, in versions of which it warns of its own code."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        make_dual(torch.zeros(1), torch.zeros(1))


def make_dual(param: torch.Tensor, tangent: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = forward_ad.make_dual(param.detach(), tangent)  # type: ignore[no-untyped-call]
    return made
