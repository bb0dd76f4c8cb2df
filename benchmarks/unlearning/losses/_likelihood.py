"""Losses made of the likelihood of each token: NLL, gradient ascent and its weighted forms, and KL to a reference."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ._tokens import Batch, Reduction, averaged, logits_of, next_labels, token_nll


def nll(model: Any, batch: Batch, *, reduction: Reduction = "mean") -> Tensor:
    """``-log p`` of a token of the answer, in nats: the mean over all labels of the batch.

    With ``reduction="none"`` the mean over each row's labels, (B,). (The mean over the batch is that of its tokens, as
    in Hugging Face's models: a long answer counts for more than a short one.)
    """
    return averaged(*token_nll(logits_of(model, batch), batch["labels"]), reduction)


def grad_ascent(model: Any, batch: Batch, *, reduction: Reduction = "mean") -> Tensor:
    """``-nll``, unbounded below. A trainer may as well take :func:`nll` as an objective to maximise."""
    return -nll(model, batch, reduction=reduction)


def wga(model: Any, batch: Batch, *, beta: float = 1.0, reduction: Reduction = "mean") -> Tensor:
    """Weighted gradient ascent, ``-mean(p^beta (-log p))``, with the weight ``p^beta`` of each token held constant.

    Wang et al., "Rethinking LLM unlearning objectives: a gradient perspective and go beyond", ICLR 2025 (arXiv
    2502.19301). Tokens that are forgotten already lose their weight. ``beta=0`` is gradient ascent.
    """
    if not beta >= 0:
        raise ValueError(f"beta must not be negative, got {beta!r}")
    values, mask = token_nll(logits_of(model, batch), batch["labels"])
    weights = torch.exp(-beta * values.detach())
    return -averaged(weights * values, mask, reduction)


def satimp(
    model: Any, batch: Batch, *, beta1: float = 5.0, beta2: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """``-mean(p^beta1 (1 - p)^beta2 (-log p))``, with the weights held constant: saturation times importance.

    Yang et al., "Exploring criteria of loss reweighting to enhance LLM unlearning", ICML 2025 (arXiv 2505.11953).
    ``beta1=beta2=0`` is gradient ascent.
    """
    if not (beta1 >= 0 and beta2 >= 0):
        raise ValueError(f"beta1 and beta2 must not be negative, got {beta1!r} and {beta2!r}")
    values, mask = token_nll(logits_of(model, batch), batch["labels"])
    fixed = values.detach()
    weights = torch.exp(-beta1 * fixed) * (-torch.expm1(-fixed)) ** beta2
    return -averaged(weights * values, mask, reduction)


def kl_to_reference(
    model: Any,
    batch: Batch,
    *,
    reference: Any,
    positions: Literal["text", "answer"] = "text",
    reduction: Reduction = "mean",
) -> Tensor:
    """``KL(p_ref || p) = sum_v p_ref(v) log(p_ref(v) / p(v))`` over the vocabulary, the mean over positions.

    Args:
        model: What is trained.
        batch: Of :func:`~mtopt_suites.unlearning.encoding.collate`.
        reference: The model to stay near to; it is run without a graph.
        positions: ``"text"``, every position that a token follows, the prompt's too (TOFU's and MUSE's), or
            ``"answer"``, those that predict a label. Padding never counts, unlike in the published code.
        reduction: ``"mean"`` over all positions of the batch, ``"none"`` over those of each row.

    Zero, with a zero gradient, where the model is the reference.
    """
    if positions not in ("text", "answer"):
        raise ValueError(f"positions must be 'text' or 'answer', got {positions!r}")
    with torch.no_grad():
        expected = logits_of(reference, batch)[:, :-1].log_softmax(dim=-1)
    found = logits_of(model, batch)[:, :-1].log_softmax(dim=-1)
    divergence = (expected.exp() * (expected - found)).sum(dim=-1)
    mask = batch["attention_mask"][:, 1:].bool() if positions == "text" else next_labels(batch["labels"])[1]
    return averaged(divergence, mask, reduction)
