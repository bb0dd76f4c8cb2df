"""Whether the saved state of an optimizer belongs to the one that is to go on with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from mtopt._content import check_alike, check_mapping
from mtopt._errors import CheckpointError
from mtopt._moments import check_moments, check_settings


def parameter_names(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[list[str]]:
    """The parameters of each group by name, in order; those that the model does not have by their shape."""
    names = {id(param): name for name, param in model.named_parameters()}
    return [
        [names.get(id(param), f"one outside the model of shape {tuple(param.shape)}") for param in group["params"]]
        for group in optimizer.param_groups
    ]


def check_optimizer(model: torch.nn.Module, optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Check groups, the order of the parameters, and, for optimizers of torch, each entry.

    Raises:
        CheckpointError: the state belongs to other parameters, or is none.
    """
    state = check_mapping(saved["state"], "optimizer's state", ("state", "param_groups"))
    groups = state["param_groups"]
    if not isinstance(groups, list):
        raise CheckpointError(f"its optimizer's groups must be a list, found {groups!r:.60}")
    for number, group in enumerate(groups):
        check_mapping(group, f"optimizer's group {number}", ("params",))
        if not isinstance(group["params"], list):
            raise CheckpointError(
                f"its optimizer's group {number} must list its parameters, found {group['params']!r:.60}"
            )
    here = [len(group["params"]) for group in optimizer.param_groups]
    there = [len(group["params"]) for group in groups]
    if here != there:
        raise CheckpointError(
            f"it was made with an optimizer over groups of {there} parameters, found groups of {here}; "
            "give the optimizer the same parameters"
        )
    _check_order(parameter_names(model, optimizer), saved.get("parameters"))
    numbers = [number for group in groups for number in group["params"]]
    if [type(number) for number in numbers] != [int] * len(numbers) or numbers != list(range(len(numbers))):
        raise CheckpointError("its optimizer's parameters must be numbered from 0; it was not written by torch")
    entries: Mapping[Any, Any] = check_mapping(state["state"], "optimizer's state")
    if foreign := [number for number in entries if number not in range(len(numbers))]:
        raise CheckpointError(f"its optimizer has a state for parameter {foreign[0]!r:.60} of {len(numbers)}")
    known = type(optimizer).__module__.startswith("torch.optim")
    for index, (group, other) in enumerate(zip(optimizer.param_groups, groups, strict=True)):
        if known:
            _check_group(group, other, f"optimizer's group {index}")
            check_settings(optimizer, other, f"optimizer's group {index}")
        for param, number in zip(group["params"], other["params"], strict=True):
            part = f"optimizer's state of parameter {number}"
            check_moments(optimizer, other, param.shape, entries.get(number, {}), part)


def _check_group(group: Mapping[str, Any], saved: Mapping[str, Any], part: str) -> None:
    """Settings of the same kinds; those that are None at first are flags, or stay None (``foreach``, ``fused``)."""
    # a scheduler notes the first rate: whether there is one is said elsewhere
    fresh = {key: value for key, value in group.items() if key not in ("params", "param_names", "initial_lr")}
    check_alike(fresh, saved, part)
    for key in (key for key in fresh if fresh[key] is None):
        if type(saved.get(key)) not in (type(None), bool):
            raise CheckpointError(f"its {part} has {key}={saved[key]!r:.60}, which must be a bool or None")
    if saved.get("capturable") is True and not group.get("capturable"):
        raise CheckpointError(f"its {part} has capturable=True, for a GPU; give the optimizer capturable=True, too")


def _check_order(here: list[list[str]], there: Any) -> None:
    if there is None or here == there:  # None before the names were saved
        return
    lists = isinstance(there, list) and all(isinstance(group, list) for group in there)
    if not lists or [len(group) for group in here] != [len(group) for group in there]:
        raise CheckpointError(
            f"its names of the optimizer's parameters are {there!r:.60}, as many as parameters expected"
        )
    number, place = next((g, p) for g, group in enumerate(here) for p in range(len(group)) if group[p] != there[g][p])
    raise CheckpointError(
        f"its optimizer has the parameters in another order, or others: number {place} of group {number} was "
        f"{there[number][place]}, found {here[number][place]}; give the optimizer the parameters in the order saved"
    )
