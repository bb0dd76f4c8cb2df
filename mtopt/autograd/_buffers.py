"""Buffers, such as running statistics, that are afterwards as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

_Held = dict[str, torch.Tensor | None]


@contextmanager
def buffers_kept(model: nn.Module | None = None, *, called: bool | None = None) -> Iterator[None]:
    """Afterwards the buffers of ``model``, and with ``called`` of all modules that were called meanwhile, are as they
    were. Default of ``called``: where no model is given.

    They are the same tensors, put right in place, where others have taken their names, too; what was added is gone.
    """
    kept: dict[int, tuple[_Held, _Held, list[tuple[torch.Tensor, torch.Tensor]]]] = {}

    def keep(called: nn.Module, arguments: Any = None) -> None:
        if id(called) in kept:
            return
        for module in called.modules():  # a compiled or scripted module calls its parts without being seen
            if id(module) not in kept:
                held = module._buffers
                values = [(buffer, buffer.detach().clone()) for buffer in held.values() if buffer is not None]
                kept[id(module)] = held, dict(held), values

    handle = None
    if model is not None:
        keep(model)
    if called or (called is None and model is None):
        handle = register_module_forward_pre_hook(keep)
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
        with torch.no_grad():
            for held, buffers, values in kept.values():
                for buffer, value in values:
                    buffer.copy_(value)
                held.clear()
                held.update(buffers)
