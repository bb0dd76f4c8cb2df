"""Membership inference: can it be told from the model which texts it was trained on?

Each attack gives a text a score that is **high where the text is unlikely to have been trained on**. The AUC is over
the texts to forget (label 0) and as many that no model was trained on (label 1): 1 where everything to forget is still
recognised, about 0.5 for a model that never saw it, below where forgetting went too far and is recognised as such.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..encoding import collate
from ..losses import nll
from .scoring import TokenScores, device_of, evaluating

ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus")
"""The attacks that need one forward pass of one model; ``reference`` needs the losses of a second one too, and
``gradient_norm`` a backward pass for each text (:func:`gradient_norms`)."""

MUSE_RETRAINED_AUC = {"news": 0.4772, "books": 0.5393}
"""The AUC of MUSE's own retrained models, in MUSE's convention (:func:`muse_privleak`)."""


def attack_scores(scores: TokenScores, text: str, *, share: float = 0.4) -> dict[str, float]:
    """The four scores of one encoded text, by the names of :data:`ATTACKS`.

    - ``loss``: the mean of -log p over its labels, the end included (Yeom et al., 2018).
    - ``zlib``: that over the number of bytes zlib makes of the text in UTF-8 (Carlini et al., 2021).
    - ``min_k``: minus the mean of its lowest log-probabilities, the end left out (:func:`min_k`; Shi et al., 2024).
    - ``min_k_plus_plus``: the same of the standardised log-probabilities (Zhang et al., 2025).
    """
    answer = scores.without_end()
    return {
        "loss": scores.loss,
        "zlib": scores.loss / len(zlib.compress(text.encode())),
        "min_k": min_k(answer.log_probabilities, share),
        "min_k_plus_plus": min_k(answer.standardised, share),
    }


def min_k(values: NDArray[np.float64], share: float = 0.4) -> float:
    """Minus the mean of the lowest floor(share n) of n values, at least one of them."""
    if not len(values) or not 0 < share <= 1:
        raise ValueError(f"min_k needs a value and a share in (0, 1], got {len(values)} values and share={share}")
    count = max(1, int(share * len(values)))
    return float(-np.sort(values)[:count].mean())


def gradient_norms(model: Any, rows: Sequence[Mapping[str, Sequence[int]]], *, pad_id: int) -> list[float]:
    """``(1 / P) sum_i || dl / dtheta_i ||``, the mean over the P parameter tensors of the length of the gradient of the
    row's loss l (mean -log p over its labels): the score of the ``gradient_norm`` attack, one number per row.

    open-unlearning's GradNorm with p = 2. Every tensor counts the same, however many numbers it holds. What is frozen
    or takes no part in the loss is left out of the mean: on a model with LoRA the tensors are the adapters', so its
    figures are comparable only with those of models that have the same ones. Dropout is off.

    Args:
        model: A causal language model; neither its weights nor what is in their ``.grad`` is touched.
        rows: As for :func:`~mtopt_suites.unlearning.metrics.scoring.score_tokens`.
        pad_id: Any token of the vocabulary.

    A backward pass for each row, and the memory of one gradient.
    """
    params = [param for param in model.parameters() if param.requires_grad]
    if not params:
        raise ValueError("every parameter of the model is frozen, so the loss has no gradient; unfreeze what is scored")
    norms = []
    with evaluating(model), torch.enable_grad():
        for row in rows:
            batch = {name: tensor.to(device_of(model)) for name, tensor in collate([row], pad_id).items()}
            gradients = torch.autograd.grad(nll(model, batch), params, allow_unused=True)
            lengths = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in gradients if g is not None]
            norms.append(float(torch.stack(lengths).mean()))
    return norms


def attack_auc(forget: Sequence[float], holdout: Sequence[float]) -> float:
    """The area under the ROC curve with the texts to forget as label 0 and the unknown ones as label 1: the chance that
    an unknown text has the higher score, ties counting one half."""
    if not len(forget) or not len(holdout):
        raise ValueError(f"an AUC needs scores of both sets, got {len(forget)} to forget and {len(holdout)} held out")
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score([0] * len(forget) + [1] * len(holdout), [*forget, *holdout]))


def tofu_privleak(auc: float, auc_retain: float = 0.5) -> float:
    """100 ((1 - AUC) - (1 - AUC_retain)) / (1 - AUC_retain + 1e-10), in percent: open-unlearning's.

    -100 is a full leak, 0 what the retain model has, above 0 too much forgotten; unbounded above as AUC_retain nears 1.

    Args:
        auc: Of min-k in this module's convention.
        auc_retain: The retain model's; 0.5 where there is none, as in open-unlearning.
    """
    return 100 * ((1 - auc) - (1 - auc_retain)) / (1 - auc_retain + 1e-10)


def muse_privleak(auc: float, auc_retrained: float) -> float:
    """100 (AUC - AUC_retrained) / AUC_retrained, in percent: MUSE's.

    Both AUCs are in MUSE's convention, which names the held-out texts members: 0 for a model that knows everything it
    should forget, one minus the AUC of :func:`attack_auc`. So the value is that of :func:`tofu_privleak`, but there is
    no default to compare with.
    """
    if not auc_retrained > 0:
        raise ValueError(f"auc_retrained must be positive, got {auc_retrained}: the retrained model is no reference")
    return 100 * (auc - auc_retrained) / auc_retrained
