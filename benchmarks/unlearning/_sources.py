"""What a run starts from: the sets of TOFU or MUSE from files, the hub or the generator, and a model with tokenizer."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .batches import EncodedRow
from .corpus import Corpus, Row
from .encoding import encode_all, encode_text
from .files import from_hub, read_muse, read_tofu
from .models import ReferenceConfig, load, muse_reference, prepare

GENERATED = "generated"
HUB = "hub:"


@dataclass(frozen=True)
class Sources:
    """The names of the sets of one benchmark.

    Args:
        benchmark: ``"tofu"`` or ``"muse"``.
        split: What is to be forgotten: ``"forget10"``, or a MUSE set of texts by ``config/split``, as ``"raw/forget"``.
        retain_split: What is retained, of a split of one's own. Default: what the benchmark's splits go with.
    """

    benchmark: str
    split: str
    retain_split: str | None = None

    @property
    def retained(self) -> str:
        """What is retained, to train on: ``"retain90"`` for ``"forget10"``, MUSE's ``"raw/retain1"``.

        Raises:
            ValueError: The split is no ``forgetXX``, and no ``retain_split`` was given.
        """
        if self.retain_split is not None:
            return self.retain_split
        if self.benchmark == "muse":
            return "raw/retain1"
        share = re.fullmatch(r"forget(\d\d?)", self.split)
        if share is None or int(share[1]) == 0:
            raise ValueError(
                "split must be forgetXX, XX % of the authors, so that retain(100 - XX) is the set to retain; got "
                f"{self.split!r}: name the set to retain, too (--retain-split)"
            )
        return f"retain{100 - int(share[1])}"

    @property
    def measured(self) -> list[str]:
        """The sets that the evaluation is made on."""
        if self.benchmark == "muse":
            questions = [f"knowmem/{name}_qa{kind}" for name in ("forget", "retain") for kind in ("", "_icl")]
            return ["verbmem/forget", *questions, "privleak/forget", "privleak/holdout"]
        return [f"{name}_perturbed" for name in (self.split, "retain", "real_authors", "world_facts")]

    @property
    def held_out(self) -> str | None:
        """TOFU's set for membership inference, which older copies of it do not have."""
        is_tofus = self.benchmark == "tofu" and self.split.startswith("forget")
        return self.split.replace("forget", "holdout") if is_tofus else None


def open_sets(sources: Sources, data: str, trained: Sequence[str]) -> Corpus:
    """The sets that are trained on and those that are measured, from a folder or the hub.

    Args:
        sources: Which benchmark, and what is forgotten.
        data: A folder with the benchmark's files, or ``"hub:NAME"`` with a name of
            :data:`~mtopt_suites.unlearning.files.HUB` or a data set's full one.
        trained: The names of the sets to train on.

    TOFU's held-out set is left out where there is none in the folder.
    """
    names = list(dict.fromkeys([*trained, *sources.measured]))
    held_out = sources.held_out
    if held_out and (
        data.startswith(HUB) or any((Path(data) / f"{held_out}{end}").is_file() for end in (".json", ".jsonl"))
    ):
        names.append(held_out)
    return Corpus({name: _read(sources.benchmark, data, name) for name in names})


def _read(benchmark: str, data: str, name: str) -> list[Row]:
    config, _, split = name.partition("/")
    if data.startswith(HUB):
        repository = data.removeprefix(HUB)
        return from_hub(repository, config, split) if split else from_hub(repository, config)
    return read_muse(data, config, split) if benchmark == "muse" else read_tofu(data, name)


@dataclass(frozen=True)
class Start:
    """A model to train, its tokenizer and the sets; ``retain`` is the suite's own retain model, where it made it."""

    model: Any
    tokenizer: Any
    corpus: Corpus
    retain: Any = None


def generated(sources: Sources, cache: str | os.PathLike[str] | None) -> Start:
    """The suite's own target model and sets, trained now or from the cache."""
    reference = muse_reference() if sources.benchmark == "muse" else ReferenceConfig(forget=sources.split)
    prepared = prepare(reference, cache)
    return Start(prepared.target, prepared.tokenizer, prepared.corpus, prepared.retain)


def opened(sources: Sources, data: str, model: str, trained: Sequence[str], **options: Any) -> Start:
    """A model by its name or folder, with :func:`open_sets`; ``options`` are those of
    :func:`~mtopt_suites.unlearning.models.load`."""
    corpus = open_sets(sources, data, trained)
    network, tokenizer = load(model, **options)
    return Start(network, tokenizer, corpus)


def encoded(tokenizer: Any, rows: Sequence[Row], *, template: str, max_length: int | None) -> list[EncodedRow]:
    """Questions with their answers as one row each; texts in pieces of at most ``max_length`` tokens."""
    if any("text" in row for row in rows):
        return [piece for row in rows for piece in encode_text(tokenizer, row["text"], max_length=max_length)]
    pairs = [(row["question"], row["answer"]) for row in rows]
    return [*encode_all(tokenizer, pairs, template=template, max_length=max_length)]
