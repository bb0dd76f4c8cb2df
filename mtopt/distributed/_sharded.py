"""Parameters that ``fully_shard`` holds: which shard a leaf of the graph belongs to, and who holds it.

Autograd differentiates a whole parameter, the optimizer steps the shard, and torch moves gradients from one to the
other only in a backward of its own. Torch has no public name for what ties them: all that is read of it is here.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a sharded parameter: ``entry`` knows the shard and the whole one, ``group`` those that travel together.

    Torch's ``FSDPParam`` and ``FSDPParamGroup``, held weakly: they hold the parameter.
    """

    entry: weakref.ref[Any]
    group: weakref.ref[Any]


_HOLDERS: Any = WeakIdKeyDictionary()
"""By the shard its holder; None for a parameter that is known to have none."""

_SHARDS: Any = WeakIdKeyDictionary()
"""By the whole parameter a weak reference to its shard."""

_WITHOUT_WHOLE: set[weakref.ref[Any]] = set()
"""Entries that had no whole parameter yet: torch makes it in the first forward."""


def holder_of(param: torch.Tensor) -> Holder | None:
    """Who holds a shard; None where ``fully_shard`` does not."""
    if not may_hold():
        return None
    if param not in _HOLDERS or not _is_current(_HOLDERS[param], param):
        _look_up()
    if param not in _HOLDERS:
        _HOLDERS[param] = None
    found: Holder | None = _HOLDERS[param]
    return found


def find_shard(param: torch.Tensor) -> torch.Tensor:
    """The shard of a parameter that was given, which may be the whole one; any other as it is."""
    holder_of(param)  # which looks, where it is not known
    return shard_of(param)


def shard_of(param: torch.Tensor) -> torch.Tensor:
    """The shard of a whole parameter that ``fully_shard`` put in its place for a forward; any other one as it is.

    For many parameters: nothing is looked up.
    """
    if not _SHARDS and not _WITHOUT_WHOLE:
        return param
    if _WITHOUT_WHOLE:
        _meet_wholes()
    reference = _SHARDS.get(param)
    found: torch.Tensor | None = None if reference is None else reference()
    return param if found is None else found


def whole_of(holder: Holder) -> torch.Tensor | None:
    """What autograd differentiates; None before the first forward."""
    found: torch.Tensor | None = getattr(holder.entry(), "_unsharded_param", None)
    return found


def is_freed_after_use(group: Any) -> bool:
    """Whether the user has ``reshard_after_forward`` of ``fully_shard`` set for this group, and not left to torch.

    ``set_reshard_after_backward(False)`` takes it back for what follows a backward pass.
    """
    by_torch = getattr(group.modules[0]._get_fsdp_state(), "_auto_reshard_after_forward", True)  # torch 2.8
    return group.reshard_after_backward and not by_torch and group.post_forward_mesh_info is not None


def is_sharded(params: Iterable[torch.Tensor]) -> bool:
    """Whether one of them is a DTensor, or the whole one of a shard."""
    tensors = sys.modules.get("torch.distributed.tensor")
    if tensors is None:  # then nobody has made one
        return False
    params = [param for param in params if isinstance(param, torch.Tensor)]
    if any(isinstance(param, tensors.DTensor) for param in params):
        return True
    return may_hold() and any(find_shard(param) is not param for param in params)


def refuse_sharded(params: Iterable[torch.Tensor]) -> None:
    """Raise where a parameter is sharded."""
    if is_sharded(params):
        raise ValueError(
            "params holds parameters that are sharded (DTensor, or what fully_shard puts in its place for a forward), "
            "which this way of training cannot take yet: gradients would not reach what the optimizer steps. Use "
            "mtopt.backward with the model, or leave torch.distributed.fsdp.fully_shard out"
        )


_ELSEWHERE = {
    "_fsdp_flattened": "FullyShardedDataParallel (FSDP1), which takes one backward pass a forward; use "
    "torch.distributed.fsdp.fully_shard",
    "ds_id": "DeepSpeed's third stage, which reduces in a backward of its own; use torch.distributed.fsdp.fully_shard",
}
"""What marks parameters that others hold, and what to do."""


def refuse_elsewhere(params: Iterable[torch.Tensor]) -> None:
    """Raise where another way of sharding holds a parameter."""
    for number, param in enumerate(params):
        for mark, why in _ELSEWHERE.items():
            if hasattr(param, mark):
                raise ValueError(f"params[{number}] is held by {why}")


def may_hold() -> bool:
    """Whether anything was sharded in this process. Each module that is gets a class of its own, which outlives it."""
    kind = getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)
    return kind is not None and torch.distributed.is_initialized() and bool(kind.__subclasses__())


def _is_current(holder: Holder | None, param: torch.Tensor) -> bool:
    entry = None if holder is None else holder.entry()
    return holder is None or (entry is not None and entry.sharded_param is param)


def _look_up() -> None:
    """Note who holds what now."""
    for module in _sharded_modules():
        state = module._get_fsdp_state()
        groups = getattr(state, "_fsdp_param_groups", None)  # torch 2.13; one group a module before
        for group in [state._fsdp_param_group] if groups is None else groups:
            for entry in () if group is None else group.fsdp_params:
                _HOLDERS[entry.sharded_param] = Holder(weakref.ref(entry), weakref.ref(group))
                _WITHOUT_WHOLE.add(weakref.ref(entry))
    _meet_wholes()


def _meet_wholes() -> None:
    for reference in list(_WITHOUT_WHOLE):
        entry: Any = reference()
        whole = getattr(entry, "_unsharded_param", None)
        if entry is None or whole is not None:
            _WITHOUT_WHOLE.discard(reference)
        if whole is not None:
            _SHARDS[whole] = weakref.ref(entry.sharded_param)


def _sharded_modules() -> Iterator[Any]:
    """All modules that ``fully_shard`` was applied to: what refers to their classes, and little else does."""
    kind = sys.modules["torch.distributed.fsdp"].FSDPModule
    for each in gc.get_referrers(*kind.__subclasses__()):
        if issubclass(type(each), kind):  # by the type, since isinstance would ask the objects
            yield each
