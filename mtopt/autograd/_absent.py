"""Losses that are absent from a step because their value says so."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from mtopt.autograd._objective import ABSENT, LossValue, read_losses
from mtopt.autograd._record import StepRecord

Absent = Literal["nan"] | None
"""What is absent besides None: nothing, or a loss whose value is NaN."""


def check_absent(absent: object) -> None:
    """Raise for a word that ``absent`` does not know."""
    if absent not in (None, "nan"):
        raise ValueError(f"absent must be 'nan' or None, found {absent!r}")


def without_nan(losses: Any) -> Any:
    """``losses`` with None in place of those whose value is NaN; what is callable stays so, and does it when it is run.

    What is no collection of losses is handed back as it is, for the error of those who read it.
    """
    if callable(losses):
        return lambda: without_nan(losses())
    if not isinstance(losses, torch.Tensor | Mapping | Sequence) or isinstance(losses, str):
        return losses
    objectives, values = read_losses(losses, some=False)
    tensors = [value.detach().reshape(-1) for value in values if isinstance(value, torch.Tensor)]
    bad = _are_nan(tensors)
    found: list[LossValue] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(None if bad.pop(0) else value)
        else:
            found.append(_or_absent(value) if callable(value) else value)
    return dict(zip(objectives, found, strict=True)) if isinstance(losses, Mapping) else found


def _are_nan(tensors: Sequence[torch.Tensor]) -> list[bool]:
    """Which of them are one NaN: one transfer from a device, however many there are."""
    if any(tensor.numel() != 1 for tensor in tensors) or len({tensor.device for tensor in tensors}) != 1:
        return [tensor.numel() == 1 and bool(tensor.isnan()) for tensor in tensors]
    found: list[bool] = torch.cat([tensor.double() for tensor in tensors]).isnan().tolist()
    return found


def _or_absent(loss: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        found = loss()
        return ABSENT if isinstance(found, torch.Tensor) and _are_nan([found.detach().reshape(-1)])[0] else found

    return run


def nothing_present() -> StepRecord:
    """The record of a step that no loss is left for."""
    return StepRecord(
        losses={},
        skipped=True,
        reason="no loss is present: all of them are NaN (or None), which absent='nan' takes as absent",
        plan="no backward",
    )


def with_hint(record: StepRecord) -> StepRecord:
    """``record``, whose reason says what to do where a step was skipped for a NaN loss."""
    if not record.skipped or not any(map(math.isnan, record.losses.values())):
        return record
    hint = "where NaN means that this batch has no labels of it, give None for the loss, or absent='nan'"
    return replace(record, reason=f"{record.reason}; {hint}")
