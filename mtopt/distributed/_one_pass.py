"""How ``fully_shard`` is set for one backward pass whose gradients are taken away again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mtopt.distributed._sharded import is_freed_after_use

_SETTINGS = ("reduce_grads", "all_reduce_grads", "reshard_after_backward", "_reduce_dtype")

_SHORT = (torch.bfloat16, torch.float16)


@contextmanager
def reduced_at_once(groups: Sequence[Any], *, keep_whole: bool) -> Iterator[None]:
    """Gradients are reduced in this pass, in float32 at least unless the user has said in what.

    ``keep_whole``: another pass is to come, and parameters stay gathered for it where the user has not said otherwise.
    """
    before = [{name: getattr(group, name) for name in _SETTINGS} for group in groups]
    try:
        for group in groups:
            group.reduce_grads = group.all_reduce_grads = True
            group.reshard_after_backward = not keep_whole or is_freed_after_use(group)
            if group._reduce_dtype is None and group.mp_policy.param_dtype in _SHORT:
                group._reduce_dtype = torch.float32
        yield
    finally:
        for group, settings in zip(groups, before, strict=True):
            for name, value in settings.items():
                setattr(group, name, value)


@contextmanager
def gradients_apart(params: Sequence[torch.Tensor], entries: Sequence[Any]) -> Iterator[None]:
    """``.grad`` holds those of this pass alone, and what it held afterwards, also those that wait for a reduction.

    The user's hooks on gradients are not called: they are called with the direction, and not with rows.
    """
    wholes = [getattr(entry, "_unsharded_param", None) for entry in entries]
    held = [param.grad for param in params]
    waiting = [None if whole is None else whole.grad for whole in wholes]
    summed = [entry.unsharded_accumulated_grad for entry in entries]
    hooks: list[Any] = [getattr(param, "_post_accumulate_grad_hooks", None) for param in params]
    try:
        _set(params, [None] * len(params), wholes, [None] * len(params), entries, [None] * len(params))
        for param, found in zip(params, hooks, strict=True):
            if found:
                _set_hooks(param, None)
        yield
    finally:
        _set(params, held, wholes, waiting, entries, summed)
        for param, found in zip(params, hooks, strict=True):
            if found:
                _set_hooks(param, found)


def _set_hooks(param: Any, hooks: Any) -> None:
    param._post_accumulate_grad_hooks = hooks


def _set(
    params: Sequence[torch.Tensor],
    held: Sequence[torch.Tensor | None],
    wholes: Sequence[torch.Tensor | None],
    waiting: Sequence[torch.Tensor | None],
    entries: Sequence[Any],
    summed: Sequence[torch.Tensor | None],
) -> None:
    """The gradients of shards, of whole parameters, and those that torch has summed without a reduction."""
    for param, gradient in zip(params, held, strict=True):
        param.grad = gradient
    for whole, gradient in zip(wholes, waiting, strict=True):
        if whole is not None:
            whole.grad = gradient
    for entry, gradient in zip(entries, summed, strict=True):
        entry.unsharded_accumulated_grad = gradient
