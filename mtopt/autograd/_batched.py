"""All gradient rows in one batched backward: what ``torch.vmap`` makes of the graph, where it can."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mtopt.autograd._retained import add_retained, retained_behind, set_aside
from mtopt.linalg import Row, split_complex


class NotBatchedError(Exception):
    """The graph holds what cannot be batched: why, in words."""


def batched_rows(
    outputs: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
    params: Sequence[torch.Tensor],
    reached: Mapping[int, Sequence[int]],
) -> list[Row]:
    """K rows at once: row k is the gradient of ``outputs`` with ``cotangents[...][k]``.

    ``reached``: by the parameters' ids, the rows that reach each; a batch has zeros where a row does not.
    """
    found = batched_gradients(outputs, cotangents, params)
    reaches = [reached.get(id(param), ()) for param in params]
    return [
        [
            None if batch is None or k not in reach else split_complex(batch[k])
            for batch, reach in zip(found, reaches, strict=True)
        ]
        for k in range(len(cotangents[0]))
    ]


def batched_gradients(
    outputs: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor | torch.autograd.graph.GradientEdge],
) -> Sequence[torch.Tensor | None]:
    """For each of ``inputs``, parameters or places in the graph, the gradients of all K rows, (K, ...).

    The graph is kept: autograd frees nothing on the way, so that the rows can be made one by one if this fails. A
    result in the graph that retains its gradient gets the sum of the K, as from K backwards: autograd would leave it a
    tensor of the batch, which nothing can be done with once the batch is over.

    Raises:
        NotBatchedError: a function in the graph has no batching rule, or the batch does not fit in memory.
    """
    retained = retained_behind(outputs)
    wanted: list[Any] = [*inputs, *retained]
    try:
        with set_aside(retained):
            batches = torch.autograd.grad(
                list(outputs), wanted, list(cotangents), retain_graph=True, allow_unused=True, is_grads_batched=True
            )
    except RuntimeError as error:  # torch has no class of its own for it; what is wrong otherwise, the loop raises, too
        raise NotBatchedError(str(error).strip().partition("\n")[0].rstrip(".")) from error
    add_retained(retained, batches[len(inputs) :])
    return batches[: len(inputs)]


def unit_cotangents(losses: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """For each loss a one in its own row, (K,)."""
    count = len(losses)
    return [
        loss.new_zeros(count).index_fill_(0, torch.tensor([k], device=loss.device), 1.0)
        for k, loss in enumerate(losses)
    ]
