"""Losses that say what the distribution over the vocabulary should be, at the positions of the answer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ._tokens import Batch, Reduction, averaged, logits_of, next_labels


def undial(model: Any, batch: Batch, *, reference: Any, beta: float = 10.0, reduction: Reduction = "mean") -> Tensor:
    """``-sum_v q(v) log p(v)`` with ``q = softmax(z_ref - beta onehot(y))``, the mean over the answers' tokens.

    Dong et al., "UNDIAL: self-distillation with adjusted logits for robust unlearning in large language models", NAACL
    2025 (arXiv 2402.10052). ``z_ref`` are the reference's logits, run without a graph. open-unlearning's port averages
    over the prompt and padding, too, where it lowers the logit of token ``V - 100``; here they do not count.
    """
    following, mask = next_labels(batch["labels"])
    with torch.no_grad():
        adjusted = logits_of(reference, batch)[:, :-1]
        adjusted = adjusted.scatter_add(-1, following[..., None], torch.full_like(adjusted[..., :1], -beta))
        expected = adjusted.softmax(dim=-1)
    found = logits_of(model, batch)[:, :-1].log_softmax(dim=-1)
    return averaged(-(expected * found).sum(dim=-1), mask, reduction)


def ce_u(model: Any, batch: Batch, *, ignore_first: int = 1, reduction: Reduction = "mean") -> Tensor:
    """``-sum_v q(v) log p(v)`` with q the model's own distribution without the true token, ``q(y) = 0``, held constant.

    Yang, "CE-U: cross entropy unlearning" (arXiv 2503.01224). For each token, its gradient is that of gradient ascent
    times ``p(y) / (1 - p(y))``, which vanishes once the token is forgotten.

    Args:
        model: What is trained.
        batch: The rows to forget.
        ignore_first: So many tokens of each answer do not count.
        reduction: The mean over the tokens that count, of the batch or of each row.
    """
    if isinstance(ignore_first, bool) or not isinstance(ignore_first, int) or ignore_first < 0:
        raise ValueError(f"ignore_first must be a number of tokens >= 0, got {ignore_first!r}")
    following, mask = next_labels(batch["labels"])
    mask = mask & (mask.cumsum(dim=1) > ignore_first)
    if not bool(mask.any(dim=1).all()):
        raise ValueError(
            f"ignore_first={ignore_first} leaves nothing of an answer that has as few labels; lower it or leave the "
            "row out"
        )
    logits = logits_of(model, batch)[:, :-1]
    expected = logits.detach().scatter(-1, following[..., None], -math.inf).softmax(dim=-1)
    return averaged(-(expected * logits.log_softmax(dim=-1)).sum(dim=-1), mask, reduction)


def max_entropy(model: Any, batch: Batch, *, reduction: Reduction = "mean") -> Tensor:
    """``KL(uniform || p) = -log V - mean_v log p(v)``, the mean over the answers' tokens: 0 where p is uniform.

    Yuan et al., "A closer look at machine unlearning for large language models", ICLR 2025 (arXiv 2410.08109).
    """
    _, mask = next_labels(batch["labels"])
    found = logits_of(model, batch)[:, :-1].log_softmax(dim=-1)
    return averaged(-found.mean(dim=-1) - math.log(found.shape[-1]), mask, reduction)


def logit_flattening(model: Any, batch: Batch, *, reduction: Reduction = "mean") -> Tensor:
    """``(max_v z(v) - mean_v z(v))²``, the mean over the answers' tokens: 0 where all logits are equal.

    The forget loss of PDU, Entesari et al., "Constrained entropic unlearning: a primal-dual framework for large
    language models" (arXiv 2506.05314), whose other half is :class:`mtopt_suites.unlearning.primal_dual.PrimalDual`.
    """
    _, mask = next_labels(batch["labels"])
    logits = logits_of(model, batch)[:, :-1]
    return averaged((logits.amax(dim=-1) - logits.mean(dim=-1)).square(), mask, reduction)
