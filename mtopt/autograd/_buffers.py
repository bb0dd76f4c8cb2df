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
def buffers_kept(*owners: object) -> Iterator[None]:
    """Afterwards the buffers of ``owners``, or without any of all modules that were called meanwhile, are as they were.

    They are the same tensors, put right in place, where others have taken their names, too; what was added is gone. An
    owner is a module, or something whose attributes are modules. (Without owners there is a hook on all modules, of
    which a compiled one warns.)
    """
    kept: dict[int, tuple[_Held, _Held, list[tuple[torch.Tensor, torch.Tensor]]]] = {}

    def keep(module: nn.Module) -> None:
        if id(module) not in kept:
            held = module._buffers
            values = [(buffer, buffer.detach().clone()) for buffer in held.values() if buffer is not None]
            kept[id(module)] = held, dict(held), values

    def keep_called(called: nn.Module, arguments: Any) -> None:
        if id(called) not in kept:
            for module in called.modules():  # a compiled or scripted module calls its parts without being seen
                keep(module)

    for module in modules_of(*owners):
        keep(module)
    handle = None if owners else register_module_forward_pre_hook(keep_called)
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


def modules_of(*owners: object) -> Iterator[nn.Module]:
    """The modules inside each owner: those of a module, and of the modules among another's attributes."""
    for owner in owners:
        if isinstance(owner, nn.Module):
            yield from owner.modules()
        else:
            yield from modules_of(*(value for value in vars(owner).values() if isinstance(value, nn.Module)))
