"""Steps written by hand, without a library: what the others are measured against."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .models import Shared

Step = Callable[[], None]
Weigh = Callable[[torch.Tensor], torch.Tensor]


def descent(model: Shared) -> torch.optim.SGD:
    """The optimizer of every step."""
    return torch.optim.SGD(model.parameters(), lr=1e-3)


def plain(model: Shared) -> Step:
    """One backward of the summed losses."""
    optimizer = descent(model)

    def step() -> None:
        optimizer.zero_grad()
        torch.stack(model.losses()).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def hand_written(model: Shared, weigh: Weigh) -> Step:
    """K calls of ``autograd.grad`` into one buffer, one matrix product, one matrix-vector product.

    ``weigh`` makes the weights (K,) of the Gramian (K, K), both float64 on the CPU. The product runs in the gradients'
    own precision, which is less exact than what ``mtopt`` does. Each head gets its own loss's gradient.
    """
    optimizer = descent(model)
    trunk, heads = list(model.trunk.parameters()), [list(head.parameters()) for head in model.heads]
    sizes = [param.numel() for param in trunk]
    buffer: torch.Tensor | None = None

    def step() -> None:
        nonlocal buffer
        optimizer.zero_grad()
        losses = model.losses()
        if buffer is None:
            buffer = losses[0].new_empty(len(losses), sum(sizes))
        for k, loss in enumerate(losses):
            found = torch.autograd.grad(loss, [*trunk, *heads[k]], retain_graph=k + 1 < len(losses))
            place = 0
            for gradient, size in zip(found, sizes, strict=False):
                buffer[k, place : place + size].copy_(gradient.reshape(-1))
                place += size
            for param, gradient in zip(heads[k], found[len(trunk) :], strict=True):
                param.grad = gradient
            del found, gradient
        weights = weigh((buffer @ buffer.T).double().cpu())
        direction = weights.to(buffer) @ buffer
        for param, piece in zip(trunk, torch.split(direction, sizes), strict=True):
            param.grad = piece.view_as(param)
        optimizer.step()

    return step


def concatenated(model: Shared, other: torch.Tensor) -> Step:
    """Two objectives on two batches in one forward, and one backward of their difference."""
    optimizer = descent(model)
    size = len(other)

    def step() -> None:
        optimizer.zero_grad()
        features = model.features(torch.cat([model.inputs, other]))  # type: ignore[list-item]
        (model.loss(0, features[:size]) - model.loss(0, features[size:])).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def separate(model: Shared, other: torch.Tensor) -> Step:
    """Two objectives on two batches, run and differentiated in turn; each gradient over its norm."""
    optimizer = descent(model)
    trunk, head = list(model.trunk.parameters()), list(model.heads[0].parameters())

    def step() -> None:
        optimizer.zero_grad()
        rows = []
        for sign, inputs in ((1.0, None), (-1.0, other)):
            loss = sign * model.loss(0, model.features(inputs))
            rows.append(torch.autograd.grad(loss, [*trunk, *head]))
            del loss
        norms = [float(torch.stack(torch._foreach_norm(row)).norm()) for row in rows]
        first, second = rows
        torch._foreach_mul_(first, 1.0 / norms[0])
        torch._foreach_add_(first, second, alpha=1.0 / norms[1])
        for param, gradient in zip([*trunk, *head], first, strict=True):
            param.grad = gradient
        optimizer.step()

    return step
