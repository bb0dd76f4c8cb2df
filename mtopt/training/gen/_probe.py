"""The loss along an optimizer's own step, measured without taking it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch

from mtopt._replay import Generators, buffers_kept
from mtopt.distributed import release
from mtopt.linalg import view_shard
from mtopt.training._kept_state import optimizer_kept
from mtopt.training._random import global_state, set_global_state

Loss = TypeVar("Loss")


def along_update(
    optimizer: torch.optim.Optimizer,
    measure: Callable[[], Loss],
    points: Sequence[float],
    *,
    owner: object = None,
) -> tuple[list[Loss], bool]:
    """``L(w + s (w' - w))`` for each s in ``points``, where w' is what ``optimizer.step()`` would make of w.

    The step is the optimizer's own: momentum, Adam's preconditioning and weight decay are in it, and the gradients are
    those in ``.grad``. It is taken once, to see where it leads. Afterwards the parameters, the gradients, the
    optimizer's state, the buffers and the generators (global ones, and attributes of the modules called) are as they
    were, bit for bit. At every point the loss is measured with the same buffers and the same random numbers, so that
    dropout masks do not blur the comparison.

    Args:
        optimizer: its parameters are the w.
        measure: the loss with the parameters as they are; runs without a graph.
        points: multiples of the update.
        owner: whose buffers and generators are kept: a module, or what has modules as attributes. Default: all modules
            that ``measure`` calls.

    Returns:
        What was measured at each point, and whether the optimizer does anything: an update that is zero throughout,
        without a gradient, is none. (With one it is lost in rounding, at a rate far too small.)
    """
    params = [param for group in optimizer.param_groups for param in group["params"]]
    owners = () if owner is None else (owner,)
    generators, drawn = global_state(), Generators({param.device for param in params}, *owners)
    recorded = nullcontext if owners else drawn.recorded
    with torch.no_grad():
        start = [param.detach().clone() for param in params]
        try:
            with optimizer_kept(optimizer):
                optimizer.step()
                update = [param - before for param, before in zip(params, start, strict=True)]
            losses = []
            for point in points:
                for param, before, change in zip(params, start, update, strict=True):
                    param.copy_(before).add_(change, alpha=point)
                release(params)
                set_global_state(generators)
                torch.clear_autocast_cache()  # it would give the weights of the point before
                with drawn.replayed(), buffers_kept(*owners), recorded():
                    losses.append(measure())
            return losses, _moves(params, update)
        finally:
            for param, before in zip(params, start, strict=True):
                param.copy_(before)
            release(params)
            set_global_state(generators)
            torch.clear_autocast_cache()


def _moves(params: Sequence[torch.Tensor], update: Sequence[torch.Tensor]) -> bool:
    grads = [param.grad for param in params if param.grad is not None]
    return any(bool(view_shard(change).any()) for change in [*update, *grads])
