"""Losses that prefer: negative preference optimisation, and another answer in place of the one to forget.

``S = -log p(y | x)`` is the sum over the labels of a row, and sigma the logistic function.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ._likelihood import nll
from ._tokens import (
    Batch,
    Reduction,
    check_positive,
    logits_of,
    mean_nll,
    reduced,
    sequence_nll,
)


def npo(model: Any, batch: Batch, *, reference: Any, beta: float = 0.1, reduction: Reduction = "mean") -> Tensor:
    """``-(2 / beta) log sigma(beta (S - S_ref))``, the mean over rows.

    Zhang et al., "Negative preference optimization", COLM 2024 (arXiv 2404.05868). Its gradient is that of ``-S`` times
    ``2 p^beta / (p^beta + p_ref^beta)``: gradient ascent at the reference and for beta to 0, and the less of it the
    more a row is forgotten. Non-negative. MUSE's code has logits where the log-probabilities belong.
    """
    check_positive("beta", beta)
    gap = _sequences(model, batch) - _sequences_fixed(reference, batch)
    return reduced(-2.0 / beta * logsigmoid(beta * gap), reduction)


def simnpo(model: Any, batch: Batch, *, beta: float = 4.5, delta: float = 0.0, reduction: Reduction = "mean") -> Tensor:
    """``-(2 / beta) log sigma(beta (S / |y| - delta))``, the mean over rows; no reference.

    Fan et al., "Simplicity prevails: rethinking negative preference optimization for LLM unlearning" (arXiv
    2410.07163). ``delta`` is the margin, their gamma / beta.
    """
    check_positive("beta", beta)
    lengths = mean_nll(logits_of(model, batch), batch["labels"])
    return reduced(-2.0 / beta * logsigmoid(beta * (lengths - delta)), reduction)


def idk_nll(model: Any, batch: Batch, *, idk: Batch, reduction: Reduction = "mean") -> Tensor:
    """:func:`~mtopt_suites.unlearning.losses.nll` of the alternative answers ``idk`` ("I don't know") to the questions.

    Args:
        model: What is trained.
        batch: The rows to forget, which do not enter.
        idk: Their questions with other answers.
        reduction: As in :func:`~mtopt_suites.unlearning.losses.nll`.

    TOFU's preference optimisation. Its code takes one mean over these and the retained rows together; here they are two
    objectives.
    """
    return nll(model, idk, reduction=reduction)


def idk_dpo(
    model: Any, batch: Batch, *, idk: Batch, reference: Any, beta: float = 0.1, reduction: Reduction = "mean"
) -> Tensor:
    """``-(2 / beta) log sigma(beta ((S_ref - S)(idk) - (S_ref - S)(batch)))``, the mean over rows.

    Direct preference optimisation with the alternative answer preferred to the one to forget, and the factor 2 of
    TOFU's code and open-unlearning's. Row i of ``idk`` is the alternative of row i of ``batch``. With answers that the
    model itself gave, it is AltPO's.
    """
    check_positive("beta", beta)
    rows, others = len(batch["input_ids"]), len(idk["input_ids"])
    if rows != others:
        raise ValueError(f"idk must hold one alternative for each row of batch, got {others} for {rows} rows")
    preferred = _sequences_fixed(reference, idk) - _sequences(model, idk)
    refused = _sequences_fixed(reference, batch) - _sequences(model, batch)
    return reduced(-2.0 / beta * logsigmoid(beta * (preferred - refused)), reduction)


def _sequences(model: Any, batch: Batch) -> Tensor:
    return sequence_nll(logits_of(model, batch), batch["labels"])


@torch.no_grad()
def _sequences_fixed(reference: Any, batch: Batch) -> Tensor:
    # a cached reference has the sums and no logits
    known = getattr(reference, "sequence_nll", None)
    return _sequences(reference, batch) if known is None else known(batch)
