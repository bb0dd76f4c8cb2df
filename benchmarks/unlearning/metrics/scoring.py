"""What a causal language model gives to the tokens of known texts: one pass per batch and no decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import mtopt

from ..encoding import IGNORED, collate

POSITIONS_AT_ONCE = 2**26
"""The most numbers of a (positions, vocabulary) table that is made in float32 at a time."""

SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class TokenScores:
    """One text's labelled tokens in their order, n of them; a label on the very first token has no prediction and is
    left out.

    Args:
        log_probabilities: log p(token | tokens before), nats, (n,) float64.
        standardised: (log p(token) - mu) / sigma, where mu and sigma are the mean and the standard deviation of
            log p(v) for v drawn from the model's own next-token distribution (variance at least 1e-6), (n,) float64.
        correct: Whether the token is the most probable one, (n,) bool.
    """

    log_probabilities: NDArray[np.float64]
    standardised: NDArray[np.float64]
    correct: NDArray[np.bool_]

    @property
    def loss(self) -> float:
        """The mean of -log p over all labelled tokens, the end included, in nats a token."""
        return float(-self.log_probabilities.mean())

    def without_end(self) -> TokenScores:
        """All but the last token, which in an encoded text is the end-of-sequence token."""
        return TokenScores(self.log_probabilities[:-1], self.standardised[:-1], self.correct[:-1])


def score_tokens(
    model: Any, rows: Sequence[Mapping[str, Sequence[int]]], *, pad_id: int, batch_size: int = 32
) -> list[TokenScores]:
    """The scores of every row's labels, in the order of the rows.

    Rows of similar length share a batch, padded on the right where causal attention never looks, so the batch size
    changes a result by rounding only. The softmax is taken in float32 whatever the model's precision.

    Args:
        model: A Hugging Face causal language model. Its mode (training or evaluation) is left as it was found.
        rows: ``input_ids`` and ``labels`` of :func:`mtopt_suites.unlearning.encoding.encode`.
        pad_id: Any token of the vocabulary.
        batch_size: Rows a pass.

    Raises:
        mtopt.NonFiniteError: The model's logits are not finite.
        ValueError: A row without a label that can be predicted.
    """
    for place, row in enumerate(rows):
        if all(label == IGNORED for label in row["labels"][1:]):
            raise ValueError(f"rows[{place}] has no labelled token after its first one, so there is nothing to score")
    order = sorted(range(len(rows)), key=lambda place: len(rows[place]["input_ids"]))
    scores: list[TokenScores | None] = [None] * len(rows)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = [rows[place] for place in places]
            for place, score in zip(places, _scored(model, batch, pad_id), strict=True):
                scores[place] = score
    return [score for score in scores if score is not None]


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Evaluation mode and no gradients within; the mode of each module is as before afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def device_of(model: Any) -> torch.device:
    """Where the model takes its inputs."""
    device: torch.device = next(iter(model.parameters())).device
    return device


def _scored(model: Any, rows: Sequence[Mapping[str, Sequence[int]]], pad_id: int) -> Iterator[TokenScores]:
    batch = {name: tensor.to(device_of(model)) for name, tensor in collate(rows, pad_id).items()}
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    following = batch["labels"][:, 1:].to(logits.device)
    labelled = following != IGNORED
    pieces = [
        _token_table(logits[:, :-1][labelled][start:stop], following[labelled][start:stop])
        for start, stop in _spans(int(labelled.sum()), max(1, POSITIONS_AT_ONCE // logits.shape[-1]))
    ]
    table = torch.cat(pieces).double().cpu().numpy()
    if not np.isfinite(table).all():
        raise mtopt.NonFiniteError(
            "the model's predictions are not finite: its weights have diverged; lower the learning rate or evaluate an "
            "earlier checkpoint"
        )
    ends = labelled.sum(dim=1).cumsum(dim=0).tolist()
    for row in np.split(table, ends[:-1]):
        yield TokenScores(row[:, 0], row[:, 1], row[:, 2] > 0)


def _token_table(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability, standardised log-probability and correctness (0 or 1) of each label, (positions, 3)."""
    log_p = logits.float().log_softmax(dim=-1)
    own = log_p.gather(1, labels[:, None])[:, 0]
    p = log_p.exp()
    # a token that the model excludes (-inf) weighs nothing in the moments
    log_p = log_p.clamp(min=torch.finfo(torch.float32).min / 4)
    mean = (p * log_p).sum(dim=1)
    centred = torch.where(p > 0, log_p - mean[:, None], 0.0)
    variance = (p * centred.square()).sum(dim=1).clamp(min=SMALLEST_VARIANCE)
    return torch.stack([own, (own - mean) / variance.sqrt(), (log_p.argmax(dim=1) == labels).float()], dim=1)


def _spans(count: int, length: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + length, count)) for start in range(0, count, length))
