"""Tokens and the positions that are scored: what all the losses are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..encoding import IGNORED

Batch = Mapping[str, Tensor]
Reduction = Literal["mean", "none"]


def logits_of(model: Any, batch: Batch) -> Tensor:
    """The model's logits (B, T, V); position t predicts the token at t + 1."""
    return full(model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits)


def full(values: Tensor) -> Tensor:
    """In float32 at least: sums over tokens and exponentials are too coarse in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def next_labels(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The label that each position but the last predicts, 0 where there is none, and where there is one: (B, T-1)."""
    following = labels[:, 1:]
    mask = following != IGNORED
    if not bool(mask.any(dim=1).all()):
        rows = (~mask.any(dim=1)).nonzero().flatten().tolist()
        raise ValueError(
            f"labels has nothing to score in rows {rows}: every label after the first position is {IGNORED}; leave "
            "these rows out, or label their answers"
        )
    return following.clamp(min=0), mask


def token_nll(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """``-log p(y_t | y_<t)`` in nats, and the mask of the positions that have a label: (B, T-1) each.

    Args:
        logits: (B, T, V).
        labels: (B, T), at their own position; the shift by one is made here.

    The likelihood is 0 wherever the mask is False. A row without any label raises ValueError.
    """
    following, mask = next_labels(labels)
    values = cross_entropy(full(logits[:, :-1]).transpose(1, 2), following, reduction="none")
    return torch.where(mask, values, 0.0), mask


def sequence_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """``S = -log p(y | x)``, the sum over each row's labels: (B,)."""
    return token_nll(logits, labels)[0].sum(dim=1)


def mean_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """``S / |y|``, the mean over each row's labels: (B,)."""
    return averaged(*token_nll(logits, labels), "none")


def averaged(values: Tensor, mask: Tensor, reduction: Reduction) -> Tensor:
    """The mean of ``values`` (B, T) where ``mask`` is True: over all of them, or (B,) over each row's own."""
    values = torch.where(mask, values, 0.0)
    if over_rows(reduction):
        return values.sum() / mask.sum()
    return values.sum(dim=1) / mask.sum(dim=1)


def reduced(values: Tensor, reduction: Reduction) -> Tensor:
    """The mean of one value per row (B,), or these values."""
    return values.mean() if over_rows(reduction) else values


def over_rows(reduction: Reduction) -> bool:
    """Whether a scalar is asked for."""
    if reduction not in ("mean", "none"):
        raise ValueError(f"reduction must be 'mean' or 'none', got {reduction!r}")
    return reduction == "mean"


def check_positive(name: str, value: float) -> None:
    """Raise unless the number is positive."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
