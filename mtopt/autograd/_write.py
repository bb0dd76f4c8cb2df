"""The end of a step: what comes to ``.grad``, whatever stands there."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from mtopt.autograd._complex import as_gradient
from mtopt.autograd._finite import Piece
from mtopt.autograd._step import Step


def write_pieces(pieces: Iterable[Piece], step: Step) -> None:
    """Accumulate as ``loss.backward()`` does, then fire the hooks that wait for it. The tensors become the parameters'
    own."""
    written = [pair for indices, gradients in pieces for pair in zip(indices, gradients, strict=True)]
    with torch.no_grad():  # a gradient may require one itself
        for index, gradient in written:
            param = step.places[index].parameter
            if gradient is None:
                continue
            gradient = as_gradient(gradient, param)
            if param.grad is None:
                param.grad = gradient if gradient.dtype == param.dtype else gradient.to(param.dtype)
            elif takes_writes(param.grad):
                param.grad.add_(gradient)
            else:
                param.grad = (gradient + param.grad).to(param.grad.dtype)  # in this order for a sparse one
        # all is written by then: a hook may step an optimizer, free .grad, or raise
        for index, gradient in written:
            if gradient is not None:
                _fire_hooks(step.places[index].parameter)


def _fire_hooks(param: torch.Tensor) -> None:
    """Call what ``register_post_accumulate_grad_hook`` holds: autograd does so only where it accumulates itself.

    Letting it accumulate (a backward from the parameter) would call the parameter's other hooks a second time.
    """
    hooks = getattr(param, "_post_accumulate_grad_hooks", None)
    for hook in list(hooks.values()) if hooks else ():
        hook(param)


def spoil(params: Iterable[torch.Tensor]) -> None:
    """Write NaN to ``.grad``: a GradScaler skips its step and lowers its factor only when it meets such a gradient.

    The gradients themselves will not do: those of an infinite loss may be finite.
    """
    with torch.no_grad():
        for param in params:
            if param.grad is not None and takes_writes(param.grad):
                param.grad.fill_(torch.nan)
            else:
                param.grad = torch.full_like(param, torch.nan)


def takes_writes(gradient: torch.Tensor) -> bool:
    """Whether there is a place for each entry: not in a sparse tensor, nor in one that was expanded."""
    if gradient.layout != torch.strided or gradient.is_inference():
        return False
    if gradient.is_contiguous():
        return True
    reach = sum((size - 1) * stride for size, stride in zip(gradient.shape, gradient.stride(), strict=True))
    return reach + 1 >= gradient.numel()
