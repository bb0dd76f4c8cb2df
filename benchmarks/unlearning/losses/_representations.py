"""Representation misdirection: hidden states of what is to be forgotten are drawn to one random vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..encoding import IGNORED
from ._tokens import Batch, Reduction, averaged, full, next_labels, reduced


def control_vector(width: int, *, seed: int = 0) -> Tensor:
    """RMU's random unit vector u (width,): uniform on [0, 1) in each coordinate, then divided by its length.

    All its coordinates are positive, as in the authors' code (``rand``, not ``randn``).
    """
    vector: Tensor = torch.rand(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    length: Tensor = vector.norm()
    return vector / length


def rmu_forget(
    model: Any,
    batch: Batch,
    *,
    control: Tensor | None = None,
    coefficient: float = 2.0,
    layer: int | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """``(h - c u)²``, the mean over coordinates, then over each row's answer tokens, then over rows.

    Li et al., "The WMDP benchmark: measuring and reducing malicious use with unlearning", ICML 2024 (arXiv 2403.03218).

    Args:
        model: A Hugging Face causal language model; ``h`` is what its block ``layer`` gives at the answers' own tokens.
        batch: The rows to forget.
        control: u, (width,). Default: :func:`control_vector` of the model's width, seed 0.
        coefficient: c, 2 as in open-unlearning's configuration; it must exceed the length that hidden states have.
        layer: The block, from 0; the last one's output is taken after the final norm. Default: ``(L - 1) // 2`` of L
            blocks, which is open-unlearning's 7 of 16.
        reduction: ``"none"`` gives one value per row, (B,).

    Blocks after ``layer`` get no gradient.
    """
    hidden = _hidden(model, batch, layer)
    vector = control_vector(hidden.shape[-1]) if control is None else control
    if vector.shape != hidden.shape[-1:]:
        raise ValueError(f"control must have shape ({hidden.shape[-1]},), the model's width, got {tuple(vector.shape)}")
    return _distance(hidden, coefficient * vector.to(hidden), batch, reduction)


def rmu_retain(
    model: Any, batch: Batch, *, reference: Any, layer: int | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """``(h - h_ref)²``, averaged as in :func:`rmu_forget`: the retained rows keep the reference's hidden states.

    The reference is run without a graph.
    """
    with torch.no_grad():
        expected = _hidden(reference, batch, layer)
    return _distance(_hidden(model, batch, layer), expected, batch, reduction)


def _distance(hidden: Tensor, expected: Tensor, batch: Batch, reduction: Reduction) -> Tensor:
    next_labels(batch["labels"])  # refuses a row without an answer
    squares = (hidden - expected).square().mean(dim=-1)
    return reduced(averaged(squares, batch["labels"] != IGNORED, "none"), reduction)


def _hidden(model: Any, batch: Batch, layer: int | None) -> Tensor:
    """What the block gives, (B, T, width)."""
    states = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
        output_hidden_states=True,
    ).hidden_states
    blocks = len(states) - 1  # the first are the embeddings
    chosen = (blocks - 1) // 2 if layer is None else layer
    if not 0 <= chosen < blocks:
        raise ValueError(f"layer must be between 0 and {blocks - 1} for a model of {blocks} blocks, got {layer!r}")
    return full(states[chosen + 1])
