"""Arguments of the trainer, each refused with its name, what was found and what to do."""

from __future__ import annotations

from typing import Any

import torch

from mtopt._counts import check_count
from mtopt.autograd import MatrixFree, PlanName, Store, as_matrix_free, check_plan
from mtopt.combiners import Combiner, combiner_class, create_combiner
from mtopt.training.callbacks import Callback


def check_parts(model: object, optimizer: object, scheduler: object) -> None:
    """The model, its optimizer, and the optimizer's scheduler."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module, found {type(model).__name__}; put bare parameters into a module"
        )
    if not isinstance(optimizer, torch.optim.Optimizer):
        hint = "; create one: optimizer(model.parameters(), ...)" if isinstance(optimizer, type) else ""
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, found {optimizer!r}{hint}")
    own = {id(param) for param in model.parameters()}
    if not any(id(param) in own for group in optimizer.param_groups for param in group["params"]):
        raise ValueError(
            "optimizer holds none of the model's parameters, so nothing would be trained; create it from "
            "model.parameters(), after the model has got its last shape and device"
        )
    if scheduler is None:
        return
    if isinstance(scheduler, Callback):
        raise TypeError(f"scheduler is a callback; give callbacks=[{type(scheduler).__name__}(...)] instead")
    if not all(callable(getattr(scheduler, name, None)) for name in ("step", "state_dict", "load_state_dict")):
        raise TypeError(f"scheduler must be a torch.optim.lr_scheduler.LRScheduler, found {type(scheduler).__name__}")
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise ValueError("scheduler is ReduceLROnPlateau, which needs a metric; step it in a callback's on_evaluate")
    if getattr(scheduler, "optimizer", optimizer) is not optimizer:
        raise ValueError("scheduler changes the rates of another optimizer; create it from the one given")


def read_rule(combiner: Combiner | str, seed: int | None) -> Combiner:
    """The rule, created with ``seed`` where it is given by name and takes one."""
    if isinstance(combiner, str):
        takes_seed = seed is not None and "seed" in combiner_class(combiner).hyperparameter_defaults()
        combiner = create_combiner(combiner, **({"seed": seed} if takes_seed else {}))
    if not isinstance(combiner, Combiner):
        hint = f"; create one: {combiner.__name__}()" if isinstance(combiner, type) else ""
        raise TypeError(f"combiner must be a Combiner or the name of one, found {combiner!r}{hint}")
    return combiner


def check_accumulate(accumulate: int, combiner: Combiner, plan: object, store: object) -> int:
    """The number of batches whose gradients are averaged, where the rule and the plan leave it open."""
    if check_count("accumulate", accumulate) is None:
        raise ValueError("accumulate must be a positive int, found None")
    if accumulate == 1:
        return accumulate
    if combiner.draws > 1 or combiner.revisits:
        takes = f"takes {combiner.draws} independent ones" if combiner.draws > 1 else "visits each one twice"
        raise ValueError(
            f"accumulate={accumulate} averages batches, and {combiner!r} {takes} per step; leave accumulate at 1, and "
            "make the batches larger instead"
        )
    if plan not in ("auto", "loop") or store is not None:
        raise ValueError(
            f"accumulate={accumulate} adds up the gradients of one backward pass per loss; leave plan={plan!r} and "
            f"store={store!r} out"
        )
    return accumulate


def check_how(
    plan: PlanName | MatrixFree,
    store: Store,
    combiner: Combiner,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """``plan`` and ``store``, as far as they can be judged before the first step."""
    if as_matrix_free(plan, None, store) is None:
        check_plan(plan, store, combiner)
        return
    held = {id(param) for group in optimizer.param_groups for param in group["params"]}
    left = [name for name, param in model.named_parameters() if param.requires_grad and id(param) not in held]
    if left:
        raise ValueError(
            f"plan='matrix_free' combines all of the model's parameters, and the optimizer lacks {left[:5]}; freeze "
            "them with requires_grad_(False), or leave the plan out"
        )


def check_callbacks(callbacks: list[Callback]) -> list[Callback]:
    """Objects, not classes, that have all the hooks."""
    for callback in callbacks:
        if not isinstance(callback, Callback):
            hint = f"; create one: {callback.__name__}()" if isinstance(callback, type) else ""
            raise TypeError(f"callbacks must hold Callback objects, found {callback!r}{hint}")
    return callbacks


def check_limits(data: Any, steps: int | None, epochs: int | None) -> None:
    """Where to stop: somewhere that can be reached."""
    check_count("steps", steps)
    check_count("epochs", epochs)
    if steps is None and epochs is None:
        raise ValueError("fit needs steps or epochs, to know where to stop")
    if data is None and steps is None:
        raise ValueError("fit was given epochs and no data; without data there are no epochs: give steps")
