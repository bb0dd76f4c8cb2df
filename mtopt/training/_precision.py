"""Mixed precision around the losses, and the step of the optimizer that goes with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from mtopt._losses import Losses, LossValue
from mtopt.distributed import ALONE, Processes, is_sharded
from mtopt.linalg import norm_of, view_shard


class Precision:
    """Autocast to a 16-bit type, with a ``GradScaler`` where gradients would underflow, and clipping.

    Args:
        autocast: ``torch.bfloat16``, ``torch.float16`` (which brings the scaler), or None for neither.
        clip_norm: the largest Euclidean norm of the direction over all parameters; None for no limit.
        device: of the parameters.

    Raises:
        ValueError: another type, or a norm that is not positive.
    """

    def __init__(self, autocast: torch.dtype | None, clip_norm: float | None, device: torch.device) -> None:
        if autocast not in (None, torch.bfloat16, torch.float16):
            raise ValueError(f"autocast must be torch.bfloat16, torch.float16 or None, found {autocast!r}")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"clip_norm must be positive or None, found {clip_norm!r}")
        self.dtype, self.clip_norm, self.device = autocast, clip_norm, device
        self.scaler = torch.amp.GradScaler(device.type) if autocast is torch.float16 else None

    def autocast(self) -> AbstractContextManager[Any]:
        """What the losses are computed in."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, dtype=self.dtype)

    def wrapped(self, losses: Losses) -> Losses:
        """``losses`` whose callables compute in autocast, too: they are run when autocast is over."""
        if self.dtype is None:
            return losses
        if isinstance(losses, Mapping):
            return {key: self._wrapped(loss) for key, loss in losses.items()}
        return [self._wrapped(loss) for loss in losses]

    def _wrapped(self, loss: LossValue) -> LossValue:
        if loss is None or isinstance(loss, torch.Tensor):
            return loss
        run: Callable[[], torch.Tensor] = loss

        def cast() -> torch.Tensor:
            with self.autocast():
                return run()

        return cast

    def finish_gradients(self, optimizer: torch.optim.Optimizer, processes: Processes = ALONE) -> str | None:
        """Unscale and clip ``.grad``. Says why the step must be skipped, if the direction is not finite."""
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients or (self.scaler is None and self.clip_norm is None):
            return None
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)
        norm = norm_of(map(view_shard, gradients))
        if is_sharded(gradients):
            mesh = next(gradient.device_mesh for gradient in gradients if hasattr(gradient, "device_mesh"))
            copies = mesh.size() // mesh.shape[-1]  # of each shard
            norm = math.hypot(*processes.gather(norm)) / math.sqrt(copies)
        if not math.isfinite(norm):
            return f"the norm of the direction is {norm}"
        if self.clip_norm is not None and norm > self.clip_norm:
            torch._foreach_mul_(gradients, self.clip_norm / norm)
        return None

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer's step."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def back_off(self, optimizer: torch.optim.Optimizer) -> None:
        """After a step that is skipped: the scaler takes a smaller factor. Gradients were unscaled before."""
        if self.scaler is not None and any(p.grad is not None for g in optimizer.param_groups for p in g["params"]):
            self.scaler.step(optimizer)  # which it does not take: it has seen what is not finite
            self.scaler.update()
