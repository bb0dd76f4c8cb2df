"""Arguments of GeN, each refused with its name, what was found and what to do."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mtopt.training._closure import needs_closure


def check_gen(
    optimizer: object,
    every: object,
    smoothing: float,
    points: Sequence[float],
    fit: float,
    startup: object,
    schedule: object,
    batches: object,
) -> None:
    """Raise for the first argument that is wrong."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(f"optimizer must be a torch.optim.Optimizer, found {type(optimizer).__name__}")
    if needs_closure(optimizer):
        hint = "; give it line_search_fn='strong_wolfe' instead" if isinstance(optimizer, torch.optim.LBFGS) else ""
        raise TypeError(f"optimizer is {type(optimizer).__name__}, which searches its own steps{hint}")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every must be a positive int, found {every!r}")
    if isinstance(startup, bool) or not isinstance(startup, int) or startup < 0:
        raise ValueError(f"startup must be an int, 0 for no start-up phase, found {startup!r}")
    if not 0.0 <= smoothing < 1.0:
        raise ValueError(f"smoothing must be in [0, 1), found {smoothing!r}")
    if not 0.0 <= fit < 1.0:
        raise ValueError(f"fit must be in [0, 1), a bound on R^2, found {fit!r}")
    if len(set(points)) != len(points) or len(points) < 3 or 0.0 not in points or not max(points) > 0:
        raise ValueError(
            f"points must be three or more different multiples of the step, 0 and a positive one among them, "
            f"found {points!r}"
        )
    if batches is not None and not (isinstance(batches, Sequence) and len(batches)):
        raise TypeError(f"batches must be a list of batches, and not empty, found {batches!r}")
    if schedule is None:
        return
    if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau) or not callable(
        getattr(schedule, "step", None)
    ):
        raise TypeError(
            f"schedule must be a torch.optim.lr_scheduler.LRScheduler that needs no metric, found "
            f"{type(schedule).__name__}"
        )
    if getattr(schedule, "optimizer", optimizer) is not optimizer:
        raise ValueError("schedule changes the rates of another optimizer; create it from the one given")
