"""Batches of two sides: what is to be forgotten, and a random retained row for each of its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .encoding import collate, encode_all

EncodedRow = Mapping[str, Sequence[int]]
Sides = dict[str, dict[str, Tensor]]

REFUSALS = (
    "I don't know.",
    "I have no information about that.",
    "That is not something I know.",
    "I'm not able to answer this question.",
    "I cannot say.",
    "I have never heard of it.",
    "Unfortunately, I don't have an answer to that.",
    "I'm not familiar with this.",
    "My knowledge does not cover this.",
    "I'm afraid I can't help with that question.",
)
"""Answers that give nothing away, for the losses with ``idk``."""


class ForgetRetainBatches:
    """TOFU's sampling: an epoch is the forget set in random order, with a retained row drawn at random for each.

    Each batch is ``{"forget": ..., "retain": ...}``, and ``"idk"`` where there are alternatives, each of them what
    :func:`~mtopt_suites.unlearning.encoding.collate` gives. The last one may have fewer rows. What an epoch holds
    depends on ``seed`` and its number alone, so that a training resumes; :class:`mtopt.MultiLossTrainer` sets the
    number. In a loop of your own, call :meth:`set_epoch` before each epoch: without it all are the same.

    Args:
        forget: Encoded rows.
        retain: Encoded rows, drawn with replacement. None: the batches have no such side.
        batch_size: Rows of each side in a batch.
        pad_id: The tokenizer's padding token.
        alternatives: For each forget row, encoded rows of its question with other answers, one of which is drawn each
            time (:func:`refusals`, or the model's own answers for AltPO).
        seed: Of the order and the draws.

    Iterating gives ``ceil(len(forget) / batch_size)`` batches.
    """

    def __init__(
        self,
        forget: Sequence[EncodedRow],
        retain: Sequence[EncodedRow] | None,
        *,
        batch_size: int,
        pad_id: int,
        alternatives: Sequence[Sequence[EncodedRow]] | None = None,
        seed: int = 0,
    ) -> None:
        _check_rows("forget", forget)
        if retain is not None:
            _check_rows("retain", retain)
        if alternatives is not None and (len(alternatives) != len(forget) or not all(alternatives)):
            raise ValueError(
                f"alternatives must hold at least one row for each of the {len(forget)} forget rows, got them for "
                f"{sum(map(bool, alternatives))}"
            )
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be a number of rows >= 1, got {batch_size!r}")
        self.forget, self.retain, self.alternatives = forget, retain, alternatives
        self.batch_size, self.pad_id, self.seed = batch_size, pad_id, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives epoch number ``epoch``, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.forget) // self.batch_size)

    def __iter__(self) -> Iterator[Sides]:
        random = np.random.default_rng([self.seed, self._epoch])
        count = len(self.forget)
        order = random.permutation(count)
        partners = random.integers(len(self.retain), size=count) if self.retain is not None else None
        choices = random.random(count)
        for start in range(0, count, self.batch_size):
            places = order[start : start + self.batch_size]
            batch = {"forget": collate([self.forget[place] for place in places], self.pad_id)}
            if self.retain is not None and partners is not None:
                batch["retain"] = collate([self.retain[partner] for partner in partners[places]], self.pad_id)
            if self.alternatives is not None:
                batch["idk"] = collate([_at(self.alternatives[place], choices[place]) for place in places], self.pad_id)
            yield batch


def retain_batches(
    rows: Sequence[EncodedRow], *, count: int, batch_size: int, pad_id: int, seed: int = 0
) -> list[Sides]:
    """Fixed batches of retained rows alone, for the probes of :class:`mtopt.GeN`.

    They are ``count`` disjoint ones while the rows last: drawn without replacement.
    """
    _check_rows("rows", rows)
    order = np.random.default_rng(seed).permutation(len(rows))
    if count * batch_size > len(rows) or min(count, batch_size) < 1:
        raise ValueError(
            f"count={count} batches of batch_size={batch_size} rows need as many rows, got {len(rows)}; lower either"
        )
    parts = (order[start * batch_size : (start + 1) * batch_size] for start in range(count))
    return [{"retain": collate([rows[place] for place in part], pad_id)} for part in parts]


def refusals(
    tokenizer: Any, rows: Sequence[Mapping[str, Any]], *, answers: Sequence[str] = REFUSALS, template: str = "plain"
) -> list[list[dict[str, list[int]]]]:
    """For each row its question, encoded with each of ``answers``: the ``alternatives`` of the losses with ``idk``."""
    if not answers:
        raise ValueError("answers is empty: a refusal needs at least one")
    pairs = [(row["question"], answer) for row in rows for answer in answers]
    encoded = encode_all(tokenizer, pairs, template=template)
    return [encoded[start : start + len(answers)] for start in range(0, len(encoded), len(answers))]


def _at(rows: Sequence[EncodedRow], share: float) -> EncodedRow:
    return rows[int(share * len(rows))]


def _check_rows(name: str, rows: Sequence[EncodedRow]) -> None:
    if not len(rows):
        raise ValueError(f"{name} is empty: give at least one encoded row")
