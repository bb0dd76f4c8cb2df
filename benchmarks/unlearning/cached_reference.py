"""The reference of a training in a file: what the model gave to the rows before its first step; no second copy."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .batches import ForgetRetainBatches, Sides
from .encoding import IGNORED, collate
from .losses import logits_of, sequence_nll
from .methods import Recipe
from .metrics.scoring import device_of, evaluating

LIKELIHOODS = {"npo": ("forget",), "idk_dpo": ("forget", "idk")}
"""The losses that take one number of a row from the reference, and of which sides."""

LOGITS = {"undial": ("forget",), "kl": ("retain",)}
"""The losses that take the whole distribution at every position."""

Key = tuple[int, ...]


class CachedReference:
    """Stands for a reference model on the rows that it was made of. Make one with :func:`cached_reference`.

    Args:
        likelihoods: ``-log p`` of each row's labels, by its tokens and labels.
        logits: (T, V) of each row, by its tokens.
    """

    def __init__(self, likelihoods: Mapping[Key, Tensor], logits: Mapping[Key, Tensor]) -> None:
        self._likelihoods, self._logits = likelihoods, logits

    def sequence_nll(self, batch: Mapping[str, Tensor]) -> Tensor:
        """``-log p(y | x)`` of each row of the batch, (B,)."""
        found = [_known(self._likelihoods, _key(row)) for row in _rows_of(batch)]
        return torch.stack(found).to(batch["input_ids"].device)

    def __call__(self, *, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:
        """``logits`` (B, T, V) of the rows, 0 on padding."""
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": input_ids}
        found = [_known(self._logits, tuple(row["input_ids"])) for row in _rows_of(batch)]
        logits = found[0].new_zeros(*input_ids.shape, found[0].shape[-1])
        for place, values in enumerate(found):
            logits[place, : len(values)] = values
        return SimpleNamespace(logits=logits.to(input_ids.device))


@contextmanager
def cached_reference(
    model: Any,
    recipe: Recipe,
    batches: ForgetRetainBatches,
    *,
    epochs: int,
    folder: Path,
    also: Iterable[Sides] = (),
    autocast: torch.dtype | None = None,
) -> Iterator[CachedReference]:
    """What the model gives now to all rows of a training, in files of ``folder`` that are removed at the end.

    One forward pass over the rows that come up in ``epochs``. A row takes one number for NPO and its like; for KL and
    UNDIAL its tokens times the vocabulary, in the model's precision: 7 MiB for 120 tokens of 32,000 in bfloat16.

    Args:
        model: The model before its first step.
        recipe: The losses that are to have the reference.
        batches: Of the training.
        epochs: Over them.
        folder: On the disk with room for it all.
        also: Further batches that the losses are run on, such as those that GeN probes on.
        autocast: As in the training.

    Raises:
        ValueError: The losses have no reference, take hidden states of it (RMU), or there is no room.
    """
    names = {recipe.forget, recipe.retain}
    if recipe.retain == "rmu" or not names & {*LIKELIHOODS, *LOGITS}:
        found = "hidden states" if recipe.retain == "rmu" else "nothing"
        raise ValueError(
            f"the losses {recipe.forget} and {recipe.retain} take {found} of a reference, and a cache holds "
            "log-probabilities; leave it out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".reference-") as place:
        kept = []
        for table, whole in ((LIKELIHOODS, False), (LOGITS, True)):
            sides = {side for name in names & set(table) for side in table[str(name)]}
            rows = _rows_that_come(batches, epochs, also, sides)
            computed = torch.autocast(device_of(model).type, autocast) if autocast else nullcontext()
            with evaluating(model), computed:
                kept.append(_written(model, rows, batches, Path(place) / f"{whole}", whole=whole))
        yield CachedReference(*kept)


def _rows_that_come(
    batches: ForgetRetainBatches, epochs: int, also: Iterable[Sides], sides: set[str]
) -> list[dict[str, list[int]]]:
    """Each row of these sides that is drawn in the epochs, or is in a further batch, once."""
    rows: dict[Key, dict[str, list[int]]] = {}

    def take(batch: Sides) -> None:
        rows.update((_key(row), row) for side in sides & set(batch) for row in _rows_of(batch[side]))

    for epoch in range(epochs if sides else 0):
        batches.set_epoch(epoch)
        for batch in batches:
            take(batch)
    batches.set_epoch(0)
    for batch in also:
        take(batch)
    return sorted(rows.values(), key=lambda row: len(row["input_ids"]))


def _written(
    model: Any, rows: list[dict[str, list[int]]], batches: ForgetRetainBatches, path: Path, *, whole: bool
) -> dict[Key, Tensor]:
    """The rows' logits, or their likelihoods, as views of one file that is mapped into memory."""
    found: dict[Key, Tensor] = {}
    stored, start = torch.empty(0), 0
    for first in range(0, len(rows), batches.batch_size):
        part = rows[first : first + batches.batch_size]
        batch = {name: value.to(device_of(model)) for name, value in collate(part, batches.pad_id).items()}
        if whole:
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
            values = [
                (tuple(row["input_ids"]), own[: len(row["input_ids"])]) for row, own in zip(part, logits, strict=True)
            ]
        else:
            nlls = sequence_nll(logits_of(model, batch), batch["labels"])
            values = [(_key(row), own) for row, own in zip(part, nlls, strict=True)]
        if not start:
            stored = _mapped(path, rows, values[0][1], whole=whole)
        for key, value in values:
            view = stored[start : start + value.numel()].view(value.shape)
            view.copy_(value)
            found[key], start = view, start + value.numel()
    return found


def _mapped(path: Path, rows: list[dict[str, list[int]]], like: Tensor, *, whole: bool) -> Tensor:
    """A file with room for all rows, as one tensor."""
    size = sum(len(row["input_ids"]) for row in rows) * like.shape[-1] if whole else len(rows)
    needed, free = size * like.element_size(), shutil.disk_usage(path.parent).free
    if needed > free:
        raise ValueError(
            f"the reference of {len(rows)} rows takes {needed / 2**30:.1f} GiB, and the disk of {path.parent.parent} "
            f"has {free / 2**30:.1f} free; write elsewhere, train fewer rows, or LoRA, which needs no cache"
        )
    return torch.from_file(str(path), shared=True, size=size, dtype=like.dtype)


def _rows_of(batch: Mapping[str, Tensor]) -> Iterable[dict[str, list[int]]]:
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    both = zip(batch["input_ids"].tolist(), batch["labels"].tolist(), lengths, strict=True)
    return [{"input_ids": ids[:length], "labels": labels[:length]} for ids, labels, length in both]


def _key(row: Mapping[str, list[int]]) -> Key:
    """A row's tokens, and how many of them are the prompt's."""
    return (row["labels"].count(IGNORED), *row["input_ids"])


def _known(values: Mapping[Key, Tensor], key: Key) -> Tensor:
    if key not in values:
        raise ValueError(
            f"the cached reference has no row of the {len(key)} tokens {list(key)[:8]} ...; it was made of others"
        )
    return values[key]
