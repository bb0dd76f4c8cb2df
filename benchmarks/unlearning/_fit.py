"""Training a small language model by heart: a plain loop, as fast as one CPU core allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .encoding import IGNORED, collate

EncodedRow = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class FitConfig:
    """AdamW with a linear warm-up and a linear decay to zero, gradients clipped to norm 1.

    Args:
        epochs: Passes over the rows.
        learning_rate: At its peak.
        batch_size: Rows a step.
        weight_decay: Of AdamW.
        warmup: The share of the steps in which the rate rises.
        replay: Rows of the background mixed into each epoch, drawn anew without replacement.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 16
    weight_decay: float = 0.01
    warmup: float = 0.1
    replay: int = 0


def fit(
    model: Any,
    rows: Sequence[EncodedRow],
    config: FitConfig,
    *,
    pad_id: int,
    seed: int,
    replay: Sequence[EncodedRow] = (),
) -> float:
    """Trains the model in place on the rows' labels (mean over the labels of a batch).

    Batches hold rows of similar length, in random order. There is no attention mask: padding is on the right, where
    causal attention never looks. The head is applied to the positions that have a label only.

    Returns:
        The mean loss over the last epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    replayed = min(config.replay, len(replay))
    steps = config.epochs * math.ceil((len(rows) + replayed) / config.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, config.warmup))
    model.train()
    last_epoch: list[float] = []
    for _ in range(config.epochs):
        drawn = torch.randperm(len(replay), generator=generator)[:replayed].tolist()
        last_epoch = []
        for batch in _batches([*rows, *(replay[place] for place in drawn)], config.batch_size, generator):
            inputs = collate(batch, pad_id)
            loss = _mean_nll(model, inputs["input_ids"], inputs["labels"])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            last_epoch.append(loss.item())
    model.eval()
    return sum(last_epoch) / max(1, len(last_epoch))


def _mean_nll(model: Any, input_ids: Tensor, labels: Tensor) -> Tensor:
    hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state[:, :-1]
    following = labels[:, 1:]
    scored = following != IGNORED
    return cross_entropy(model.get_output_embeddings()(hidden[scored]), following[scored])


def _rate(step: int, steps: int, warmup: float) -> float:
    """The share of the peak rate at a step."""
    rising = max(1, round(warmup * steps))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


def _batches(rows: Sequence[EncodedRow], size: int, generator: torch.Generator) -> Iterator[list[EncodedRow]]:
    """All rows once: shuffled, sorted by length within groups of eight batches, the batches shuffled again."""
    order = torch.randperm(len(rows), generator=generator).tolist()
    batches: list[list[int]] = []
    for start in range(0, len(order), 8 * size):
        group = sorted(order[start : start + 8 * size], key=lambda place: len(rows[place]["input_ids"]))
        batches.extend(group[first : first + size] for first in range(0, len(group), size))
    for place in torch.randperm(len(batches), generator=generator).tolist():
        yield [rows[row] for row in batches[place]]
