"""The state of a trainer whose parameters are sharded, as that of one with whole ones, and back.

``torch.distributed.checkpoint.state_dict`` is not used for the optimizer: it takes a step of zero gradients where there
is no state yet, which Adam counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mtopt._errors import CheckpointError
from mtopt.distributed import Processes, cut_like, is_sharded, make_whole
from mtopt.training.checkpoint._rule_state import joined_state, sharded_params, with_parted_rule


def whole_state(state: Mapping[str, Any], processes: Processes) -> Mapping[str, Any]:
    """The state as a trainer in one process would have it, on the first process; all of them call it.

    Raises:
        ValueError: the rule keeps something of each process's shard, and mtopt is not told what.
    """
    params = sharded_params(state)
    if not params:
        return state
    whole: Any = make_whole(with_parted_rule(state, processes), processes)
    if processes.rank == 0:
        whole["combiner"]["state"] = joined_state(whole["combiner"]["state"], params)
    return whole  # type: ignore[no-any-return]


def cut_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """The saved state with shards where the optimizer's parameters are sharded.

    Raises:
        CheckpointError: an entry has not the shape of its parameter, so that nobody knows how to cut it.
    """
    params = [param for group in optimizer.param_groups for param in group["params"]]
    if not is_sharded(params):
        return saved
    return {**saved, "state": {number: _cut_entry(params[number], entry) for number, entry in saved["state"].items()}}


def _cut_entry(param: torch.Tensor, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    tensors = {name: value for name, value in entry.items() if isinstance(value, torch.Tensor)}
    for name, value in tensors.items():
        if value.numel() > 1 and value.shape != param.shape:
            raise CheckpointError(
                f"its optimizer has {name} of shape {tuple(value.shape)} for a sharded parameter of shape "
                f"{tuple(param.shape)}; take an optimizer that treats each coordinate by itself"
            )
    cut: Mapping[str, Any] = cut_like(entry, {k: param for k, value in tensors.items() if value.shape == param.shape})
    return cut
