"""How a step may be made: the ``plan`` and the ``store`` of ``mtopt.backward``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal, get_args

import torch

from mtopt.autograd._record import StepRecord
from mtopt.combiners import Combiner

Plan = Literal["auto", "loop", "batched", "features", "matrix_free"]

Store = Literal["recompute"] | torch.dtype | None

_PLANS = get_args(Plan)

SHORT = (torch.bfloat16, torch.float16)
"""What rows may be kept in, besides their own dtype."""

LOG = logging.getLogger("mtopt.autograd")


def check_plan(plan: object, store: object, combiner: Combiner) -> None:
    """Raise for a plan or a store that does not exist, or that the rule cannot be run with."""
    if plan not in _PLANS:
        raise ValueError(f"plan must be one of {', '.join(map(repr, _PLANS))}, found {plan!r}")
    if store is not None and store not in ("recompute", *SHORT):
        raise ValueError(
            f"store must be None, 'recompute', torch.bfloat16 or torch.float16, found {store!r}; "
            "None keeps the gradients as they are"
        )
    if plan == "features":
        if not (may_recompute(combiner) and combiner.features):
            raise ValueError(
                f"plan='features' weighs by inner products of the representation's gradients, and {combiner!r} needs "
                "those of the parameters; leave it out"
            )
        if store is not None:
            raise ValueError(f"plan='features' keeps no gradients of the parameters; leave store={store!r} out")
    if combiner.draws > 1 and (plan not in ("auto", "loop") or store is not None):
        raise ValueError(
            f"{combiner!r} takes {combiner.draws} mini-batches a step, a backward a loss of each; "
            f"leave plan={plan!r} and store={store!r} out"
        )
    if store == "recompute" and not may_recompute(combiner):
        raise ValueError(
            f"store='recompute' keeps no gradients, and {combiner!r} needs their coordinates; "
            "leave it out, or take store=torch.bfloat16 for half the memory"
        )


def may_recompute(combiner: Combiner) -> bool:
    """Whether the rule weighs by inner products alone, so that no row need be kept for it."""
    return combiner.needs == "losses" or (combiner.needs in ("norms", "gramian") and combiner.weighted)


def rows_fit(params: Sequence[torch.Tensor], count: int) -> bool:
    """Whether ``count`` gradients fit in the memory that is free on each CUDA device; elsewhere they always do."""
    wanted: dict[torch.device, int] = {}
    for param in params:
        if param.is_cuda:
            wanted[param.device] = wanted.get(param.device, 0) + count * param.numel() * param.element_size()
    return all(_fits(device, size) for device, size in wanted.items())


def _fits(device: torch.device, wanted: int) -> bool:
    allocated = torch.cuda.memory_allocated(device)
    if 2 * (wanted + allocated) < torch.cuda.get_device_properties(device).total_memory:
        return True  # without asking the driver, which is slow
    free, _ = torch.cuda.mem_get_info(device)
    return wanted < 0.9 * (free + torch.cuda.memory_reserved(device) - allocated)


def logged(record: StepRecord) -> StepRecord:
    """``record`` itself, with its plan in the debug log."""
    if LOG.isEnabledFor(logging.DEBUG):
        LOG.debug("%d backwards; %s%s", record.backwards, record.plan, f"; {record.reason}" if record.reason else "")
    return record
