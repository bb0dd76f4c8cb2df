"""What a probing step changes in an optimizer beside the parameters, kept and put back bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mtopt.linalg import takes_writes

_PLAIN = (type(None), bool, int, float, complex, str, bytes)


@contextmanager
def optimizer_kept(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Afterwards the optimizer's state, its options and the gradients are as they were, in the same objects."""
    restore_state = keeper(optimizer.state)
    groups = optimizer.param_groups
    restore_options = [keeper({key: value for key, value in group.items() if key != "params"}) for group in groups]
    params = [param for group in groups for param in group["params"]]
    grads = [(param, keeper(param.grad)) for param in params]
    noted = vars(optimizer).get("_opt_called")  # what torch's schedulers warn by
    try:
        yield
    finally:
        restore_state()
        for group, restore in zip(groups, restore_options, strict=True):
            options = {"params": group["params"], **restore()}
            for name in set(group) - set(options):
                del group[name]
            group.update(options)
        for param, restore in grads:
            param.grad = restore()
        if noted is None:
            vars(optimizer).pop("_opt_called", None)
        else:
            vars(optimizer)["_opt_called"] = noted


def keeper(value: Any) -> Callable[[], Any]:
    """A function that gives ``value`` back as it is now: the same object wherever it can be put right in place."""
    if isinstance(value, torch.Tensor):
        if value.layout == torch.strided and not takes_writes(value):
            return lambda: value  # nor can a step write to it
        with torch.no_grad():
            saved = value.detach().clone()

        def put_back() -> torch.Tensor:
            with torch.no_grad():
                value.copy_(saved)
            return value

        return put_back
    if isinstance(value, dict):
        entries = {key: keeper(entry) for key, entry in value.items()}

        def refill() -> dict[Any, Any]:
            restored = {key: restore() for key, restore in entries.items()}
            value.clear()
            value.update(restored)
            return value

        return refill
    if type(value) in (list, tuple):
        kind, members = type(value), [keeper(entry) for entry in value]

        def rebuild() -> Any:
            restored = [restore() for restore in members]
            if kind is tuple:
                return tuple(restored)
            value[:] = restored
            return value

        return rebuild
    if isinstance(value, _PLAIN):
        return lambda: value
    saved_object = copy.deepcopy(value)
    return lambda: saved_object
