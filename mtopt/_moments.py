"""What torch's optimizers keep of one parameter, and whether a saved one is that."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from mtopt._content import check_mapping, content_of
from mtopt._errors import CheckpointError

_ADAM = frozenset({"step", "exp_avg", "exp_avg_sq"})
_KEPT: dict[str, frozenset[str]] = {
    "SGD": frozenset(),
    **dict.fromkeys(("Adam", "AdamW", "RAdam"), _ADAM),
    "NAdam": _ADAM | {"mu_product"},
    "Adamax": frozenset({"step", "exp_avg", "exp_inf"}),
    "RMSprop": frozenset({"step", "square_avg"}),
    "Adagrad": frozenset({"step", "sum"}),
    "Adadelta": frozenset({"step", "square_avg", "acc_delta"}),
    "ASGD": frozenset({"step", "eta", "mu", "ax"}),
    "Rprop": frozenset({"step", "prev", "step_size"}),
}
"""What each has at least, once the parameter has had a gradient."""

_FLAGGED = {"amsgrad": "max_exp_avg_sq", "centered": "grad_avg"}
_SINGLE = ("step", "mu_product", "eta", "mu")


def is_known(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is one of torch's own whose state is known here."""
    return type(optimizer).__module__.startswith("torch.optim") and type(optimizer).__name__ in _KEPT


def check_settings(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], part: str) -> None:
    """Check the numbers of a group, such as a learning rate, by making an optimizer of one number with them.

    Raises:
        CheckpointError: the optimizer's class refuses them.
    """
    if is_known(optimizer):
        taken = inspect.signature(type(optimizer)).parameters
        numbers = {k: v for k, v in saved.items() if k in taken and k != "params" and not isinstance(v, bool | None)}
        with content_of(part):
            type(optimizer)([torch.zeros(1, requires_grad=True)], **numbers)


def check_moments(
    optimizer: torch.optim.Optimizer, group: Mapping[str, Any], shape: torch.Size, saved: Any, part: str
) -> None:
    """Check what was saved of a parameter of ``shape``; of optimizers that are not known, that it is a dictionary.

    Raises:
        CheckpointError: an entry is missing, of another shape, or no number.
    """
    check_mapping(saved, part)
    if not saved or not is_known(optimizer):
        return
    needed = _KEPT[type(optimizer).__name__] | {entry for flag, entry in _FLAGGED.items() if group.get(flag) is True}
    check_mapping(saved, part, tuple(sorted(needed)))
    for key, value in saved.items():
        if key == "momentum_buffer" and value is None:
            continue
        single = key in _SINGLE
        if single and type(value) in (int, float):
            value = torch.tensor(float(value))
        fits = isinstance(value, torch.Tensor) and (value.numel() == 1 if single else value.shape == shape)
        if not fits or (key == "step" and not float(value) >= 0):
            found = f"of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r:.60}"
            raise CheckpointError(f"its {part} has {key} {found}, for a parameter of shape {tuple(shape)}")
