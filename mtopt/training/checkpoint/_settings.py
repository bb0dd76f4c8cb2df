"""What a trainer was made with, in words: a checkpoint says so when one with other settings goes on from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from mtopt.training.checkpoint._protocol import Checkpointed

Settings = dict[str, dict[str, str]]

_MOVES = ("last_epoch", "_step_count", "_last_lr")  # a scheduler's place, where it may be given one that has run
_WHAT_HAPPENS = {
    "optimizer": "the checkpoint's are used",
    "scheduler": "the checkpoint's are used",
    "trainer": "what is given now is used, and generators go on where they were",
}


def settings_of(trainer: Checkpointed) -> Settings:
    """The settings of a trainer that has just been made."""
    scheduler = {} if trainer.scheduler is None else dict(_flat(trainer.scheduler.state_dict()))
    return {
        "optimizer": {name: without_addresses(value) for name, value in trainer.optimizer.defaults.items()},
        "scheduler": scheduler,
        "trainer": {
            "seed": repr(trainer.seed),
            "accumulate": repr(trainer.accumulate),
            "autocast": repr(trainer.precision.dtype),
            "clip_norm": repr(trainer.precision.clip_norm),
            "private": repr(trainer.private),
            "absent": repr(trainer.absent),
        },
    }


def differences(saved: Any, present: Settings) -> list[str]:
    """What differs, and what is done about it; one sentence per part. Of what was not saved nothing is known."""
    found = []
    for part, here in present.items():
        there = saved.get(part) if isinstance(saved, Mapping) else None
        if not isinstance(there, Mapping):
            continue
        other = [f"{k} {there[k]!s:.60}, now {here[k]:.60}" for k in here if k in there and there[k] != here[k]]
        if other:
            found.append(f"the {part} had {'; '.join(other)}: {_WHAT_HAPPENS[part]}")
    return found


def other_dtypes(model: torch.nn.Module, saved: Mapping[str, Any]) -> list[str]:
    """Which numbers of a model were saved in another dtype, in one sentence if there are any."""
    tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    other = [
        f"{name} {saved[name].dtype}, now {value.dtype}"
        for name, value in tensors.items()
        if saved[name].dtype != value.dtype
    ]
    if not other:
        return []
    more = f" and {len(other) - 1} more" if len(other) > 1 else ""
    return [f"the model had {other[0]}{more}: numbers are converted, and steps are not those of the run saved"]


def without_addresses(value: object) -> str:
    """The repr without addresses, which differ from run to run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _flat(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A scheduler's settings, those of the schedulers inside it too."""
    for name, value in state.items():
        if name in _MOVES:
            continue
        if isinstance(value, list) and value and all(isinstance(entry, dict) for entry in value):
            for index, entry in enumerate(value):
                yield from _flat(entry, f"{prefix}{name}[{index}].")
        else:
            yield prefix + name, without_addresses(value)
