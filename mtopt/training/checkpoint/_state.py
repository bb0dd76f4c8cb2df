"""What a trainer is made of, taken apart for a checkpoint and put back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from mtopt._checkpoints import CheckpointWarning
from mtopt._content import check_alike, check_mapping, check_whole, content_of
from mtopt._errors import CheckpointError
from mtopt.distributed import load_whole, reshard, unwrapped
from mtopt.training.checkpoint._optimizer_state import check_optimizer, parameter_names
from mtopt.training.checkpoint._position import position_here
from mtopt.training.checkpoint._protocol import Checkpointed, Stateful
from mtopt.training.checkpoint._rule_state import load_rule_state, state_of_rule
from mtopt.training.checkpoint._settings import differences, other_dtypes, without_addresses
from mtopt.training.checkpoint._whole import cut_optimizer_state

_PARTS = ("step", "model", "optimizer", "scheduler", "scaler", "combiner", "callbacks", "history", "position")
_SHOWN = 5


def trainer_state(trainer: Checkpointed, position: dict[str, Any] | None) -> dict[str, Any]:
    """The trainer as tensors, which are not copied, and plain values: of several ranks, as this one has it."""
    model, processes = unwrapped(trainer.model), trainer.processes
    reshard(model)
    return {
        "step": trainer.step,
        "model": model.state_dict(),
        "optimizer": {
            "class": type(trainer.optimizer).__name__,
            "state": trainer.optimizer.state_dict(),
            "parameters": parameter_names(model, trainer.optimizer),
        },
        "scheduler": None
        if trainer.scheduler is None
        else {"class": type(trainer.scheduler).__name__, "state": trainer.scheduler.state_dict()},
        "scaler": None if trainer.precision.scaler is None else trainer.precision.scaler.state_dict(),
        "combiner": {"repr": without_addresses(trainer.combiner), "state": state_of_rule(trainer.combiner, model)},
        "callbacks": {
            key: state for key, callback in _keyed(trainer.callbacks).items() if (state := callback.state_dict())
        },
        "history": trainer.history.state_dict(),
        "position": position,
        "made_with": trainer.made_with,
        **({"ranks": processes.size} if processes.several else {}),
    }


def load_trainer_state(trainer: Checkpointed, state: Mapping[str, Any]) -> None:
    """Put a state into a trainer that was built as the saved one was. What can be checked is, before anything changes.

    Raises:
        CheckpointError: the state is not a trainer's, or belongs to another model, optimizer, scheduler or rule.
    """
    missing = [part for part in _PARTS if not isinstance(state, Mapping) or part not in state]
    if missing:
        raise CheckpointError(f"it is not the state of a trainer: it lacks {missing}; give one that a trainer wrote")
    model = unwrapped(trainer.model)
    reshard(model)
    check_whole(state["step"], "step")
    position_here(state, trainer.processes)
    _check_model(model, state["model"])
    _check_class("optimizer", trainer.optimizer, state["optimizer"])
    check_optimizer(model, trainer.optimizer, state["optimizer"])
    _check_class("scheduler", trainer.scheduler, state["scheduler"])
    if trainer.scheduler is not None and type(trainer.scheduler).__module__.startswith("torch.optim"):
        check_alike(trainer.scheduler.state_dict(), state["scheduler"]["state"], "scheduler's state")
    scaler, scaled = trainer.precision.scaler, state["scaler"]
    if (scaler is None) != (scaled is None):
        raise CheckpointError(
            f"it was made with{'out' if scaled is None else ''} autocast=torch.float16, and this trainer is "
            f"with{'out' if scaler is None else ''} it; give the autocast that was saved"
        )
    rule = check_mapping(state["combiner"], "rule", ("repr", "state"))
    callbacks = check_mapping(state["callbacks"], "callbacks")
    with content_of("rule"):
        load_rule_state(trainer.combiner, check_mapping(rule["state"], "rule's state"), model)
    other = differences(state.get("made_with"), trainer.made_with) + other_dtypes(model, state["model"])
    if rule["repr"] != without_addresses(trainer.combiner):
        other.insert(0, f"it was made with {rule['repr']!s:.200}, and training goes on with {trainer.combiner!r}")
    if other:
        warnings.warn(
            f"the checkpoint is of a run with other settings: {'. '.join(other)}", CheckpointWarning, stacklevel=4
        )
    with content_of("model"):
        load_whole(model, state["model"])
    with content_of("optimizer"):
        trainer.optimizer.load_state_dict(dict(cut_optimizer_state(trainer.optimizer, state["optimizer"]["state"])))
    if trainer.scheduler is not None:
        with content_of("scheduler"):
            trainer.scheduler.load_state_dict(state["scheduler"]["state"])
    if scaler is not None:
        with content_of("scaler"):
            scaler.load_state_dict(scaled)
    _load_callbacks(trainer.callbacks, callbacks)
    with content_of("history"):
        trainer.history.load_state_dict(state["history"])
        if not np.isfinite(trainer.history["step"]).all():
            raise CheckpointError("its history has steps without a number; give a checkpoint that a trainer wrote")
    trainer.step = state["step"]


def _keyed(callbacks: Iterable[Stateful]) -> dict[str, Stateful]:
    """Callbacks by class and, among those of one class, by order; so others may come and go between runs."""
    keyed: dict[str, Stateful] = {}
    counts: dict[str, int] = {}
    for callback in callbacks:
        name = type(callback).__name__
        counts[name] = counts.get(name, 0) + 1
        keyed[f"{name} {counts[name]}"] = callback
    return keyed


def _load_callbacks(callbacks: Iterable[Stateful], states: Mapping[str, Any]) -> None:
    keyed = _keyed(callbacks)
    for key, state in states.items():
        if key in keyed:
            with content_of(f"callback {key!r}"):
                keyed[key].load_state_dict(state)
        else:
            warnings.warn(
                f"the checkpoint holds the state of callback {key!r}, which is not among the callbacks now; dropped",
                CheckpointWarning,
                stacklevel=5,
            )


def _check_model(model: torch.nn.Module, saved: Mapping[str, Any]) -> None:
    present = model.state_dict()
    check_mapping(saved, "model")
    faults = []
    if lacking := [name for name in present if name not in saved]:
        faults.append(f"it lacks {_listed(lacking)}")
    if foreign := [name for name in saved if name not in present]:
        faults.append(f"it has {_listed(foreign)}, which the model lacks")
    tensors = {name: value for name, value in present.items() if isinstance(value, torch.Tensor) and name in saved}
    if others := [name for name in tensors if not isinstance(saved[name], torch.Tensor)]:
        raise CheckpointError(f"its model has no tensors under {_listed(others)}; give a checkpoint that mtopt wrote")
    shapes = [
        f"{name} {tuple(saved[name].shape)} (the model: {tuple(value.shape)})"
        for name, value in tensors.items()
        if saved[name].shape != value.shape
    ]
    if shapes:
        faults.append(f"it has the shapes {_listed(shapes)}")
    if faults:
        raise CheckpointError(f"it holds another model: {'; '.join(faults)}. Build the model that was saved")


def _check_class(part: str, present: object, saved: Any) -> None:
    if saved is not None:
        check_mapping(saved, part, ("class", "state"))
    here = None if present is None else type(present).__name__
    there = None if saved is None else saved["class"]
    if here != there:
        raise CheckpointError(f"it was made with {part} {there}, found {here}; give the {part} that was saved")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
