"""The models of the experiment: base, target and two retain references, trained once and cached.

``base`` is pre-trained on the background, ``target`` is base fine-tuned on all fictitious authors, ``retain`` and
``retain_second`` are base fine-tuned without those to forget, with two seeds: the second says how far apart two perfect
unlearnings are.

The defaults (Llama, 0.16 million weights) were chosen so that the signature of TOFU shows. Measured for forget10 with
seeds 0, 1 and 2 of corpus and models, in 78 CPU seconds for the four models of each: the truth ratios of the target
differ from those of retain with p = 1e-7, 3e-11 and 2e-5 (Kolmogorov-Smirnov), those of the second one with p = 0.92,
0.92 and 0.99; utilities of the three are within 0.01 of one another.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import _cache
from ._build import (
    ModelConfig,
    build,
    checkpoint_blocks,
    load,
    tiny_gpt2,
    tiny_llama,
    train_tokenizer,
    with_lora,
)
from ._fit import EncodedRow, FitConfig, fit
from .corpus import FORGET_PERCENTS, Corpus, CorpusConfig, Row, generate
from .encoding import encode, encode_text
from .muse import FOLDS, generate_muse

__all__ = [
    "FitConfig",
    "ModelConfig",
    "Prepared",
    "ReferenceConfig",
    "build",
    "checkpoint_blocks",
    "corpus_tokenizer",
    "encode_rows",
    "fit",
    "load",
    "muse_reference",
    "prepare",
    "tiny_gpt2",
    "tiny_llama",
    "train_tokenizer",
    "with_lora",
]

RECIPE = 1
"""Part of every cache key; raise it when a change of the code changes what is trained."""


@dataclass(frozen=True)
class ReferenceConfig:
    """Everything that determines the four models. The defaults are the quick tier.

    Args:
        corpus: The world.
        dataset: ``"tofu"``, questions and answers, or ``"muse"``, articles (their folds one to four are what can be
            forgotten, ``raw/forget`` is the first, and the retain models are trained on all but that one); its other
            defaults are in :func:`muse_reference`.
        model: The architecture.
        pretraining: From random weights to base, on ``background``.
        finetuning: From base to each of the others, with background rows mixed in (``replay``).
        forget: The set to forget, ``"forget01"``, ``"forget05"`` or ``"forget10"``; the retain models are trained on
            its complement. Without effect for ``"muse"``.
        template: As in :func:`mtopt_suites.unlearning.encoding.encode`.
        seed: Of the weights and the order of the rows.
    """

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    pretraining: FitConfig = field(default_factory=lambda: FitConfig(epochs=14, learning_rate=6e-3))
    finetuning: FitConfig = field(default_factory=lambda: FitConfig(epochs=12, learning_rate=5e-3, replay=400))
    dataset: str = "tofu"
    forget: str = "forget10"
    template: str = "plain"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dataset not in ("tofu", "muse"):
            raise ValueError(f"dataset must be 'tofu' or 'muse', got {self.dataset!r}")
        if self.forget not in (known := [f"forget{percent:02d}" for percent in FORGET_PERCENTS]):
            raise ValueError(f"forget must be one of {', '.join(known)}, got {self.forget!r}")

    @property
    def retained(self) -> str:
        """The complement of the set to forget: ``"retain90"`` for ``"forget10"``."""
        return f"retain{100 - int(self.forget.removeprefix('forget'))}"


def muse_reference(seed: int = 0) -> ReferenceConfig:
    """The quick tier of MUSE: 40 authors, four articles on each, and five questions.

    Names have to be copied from a question to its answer before a fact can be found by them, and a tiny model learns to
    copy from many names, not from many repetitions: so pre-training has 240 authors and few epochs. It does not learn
    to answer after ten examples, where the names in them are in the way: evaluate with ``shots=0``.

    Measured for seeds 0, 1 and 2, in 97 CPU seconds for the four models of each, as target / retain: VerbMem 0.80 /
    0.27, 0.96 / 0.32, 0.86 / 0.32; KnowMem of the first fold 0.98 / 0.60, 0.98 / 0.50, 0.89 / 0.59, of ``retain2`` 0.95
    / 0.96, 0.95 / 0.94, 0.98 / 0.99; PrivLeak -100 / 0 each, and of the second retain model 1, -3 and 26 (16 texts on
    either side: a noisy figure).
    """
    return ReferenceConfig(
        corpus=CorpusConfig(questions=5, background_authors=240, seed=seed),
        pretraining=FitConfig(epochs=10, learning_rate=6e-3),
        finetuning=FitConfig(epochs=20, learning_rate=5e-3, batch_size=8, replay=200),
        dataset="muse",
        seed=seed,
    )


@dataclass(frozen=True)
class Prepared:
    """What an unlearning experiment starts from. The models are in evaluation mode; copy what is to be changed.

    ``records`` holds, for each model, its recipe's key, its last training loss, the CPU seconds its training took and
    whether it came from the cache.
    """

    tokenizer: Any
    corpus: Corpus
    base: Any
    target: Any
    retain: Any
    retain_second: Any
    config: ReferenceConfig
    records: Mapping[str, Mapping[str, Any]]


def corpus_tokenizer(corpus: Corpus, vocabulary: int) -> Any:
    """A tokenizer trained on the background alone, so that the fictitious authors' names are made of pieces, as they
    are for a model that was pre-trained before it met them."""
    rows = [row for name, rows in corpus.sets.items() if name.startswith("background") for row in rows]
    return train_tokenizer((text for row in rows for text in row.values()), vocabulary)


def prepare(config: ReferenceConfig | None = None, cache_dir: str | os.PathLike[str] | None = None) -> Prepared:
    """The tokenizer, the corpus and the four models, from the cache or trained now (and then cached).

    An entry is found by a hash of the configuration, the encoded training rows and the versions of the libraries; a
    damaged one is trained again, with a warning. Training uses torch's current number of threads.

    Args:
        config: None is the quick tier.
        cache_dir: None is ``$XDG_CACHE_HOME/mtopt/unlearning``, by default in ``~/.cache``.
    """
    config = ReferenceConfig() if config is None else config
    folder = Path(cache_dir) if cache_dir is not None else _cache.default_folder()
    corpus = generate(config.corpus) if config.dataset == "tofu" else generate_muse(config.corpus)
    tokenizer = corpus_tokenizer(corpus, config.model.vocabulary)
    background, full, retained = (
        encode_rows(config, tokenizer, [row for name in names for row in corpus[name]])
        for names in _training_sets(config)
    )
    records: dict[str, Mapping[str, Any]] = {}

    def trained(role: str, start: Any, rows: list[EncodedRow], fitting: FitConfig, seed: int, replay: Any = ()) -> Any:
        model = build(config.model, tokenizer, config.seed)
        recipe = {
            "model": asdict(config.model),
            "fit": asdict(fitting),
            "seeds": [config.seed, seed],
            "rows": _digest([*rows, *replay]),
            "start": records["base"]["key"] if start is not None else None,
            "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
            "code": RECIPE,
        }
        place = folder / f"{role}-{_cache.key_of(recipe)}"
        record = _cache.read(place, model)
        cached = record is not None
        if record is None:
            if start is not None:
                model.load_state_dict(start.state_dict())
            began = time.process_time()
            loss = fit(model, rows, fitting, pad_id=tokenizer.pad_token_id, seed=seed, replay=replay)
            seconds = time.process_time() - began
            record = _cache.write(place, model, {"recipe": recipe, "loss": loss, "cpu_seconds": seconds})
        records[role] = {**record, "key": place.name, "cached": cached}
        return model

    base = trained("base", None, background, config.pretraining, config.seed)
    target = trained("target", base, full, config.finetuning, config.seed, background)
    retain = trained("retain", base, retained, config.finetuning, config.seed, background)
    second = trained("retain_second", base, retained, config.finetuning, config.seed + 1, background)
    return Prepared(tokenizer, corpus, base, target, retain, second, config, records)


def _training_sets(config: ReferenceConfig) -> tuple[list[str], list[str], list[str]]:
    """The names of the sets that base, target and the retain models are trained on."""
    if config.dataset == "tofu":
        return ["background"], ["full"], [config.retained]
    retained = ["train/retain1", "train/retain2"]
    folds = [f"sust/forget_{fold}" for fold in range(1, FOLDS + 1)]
    return ["background/qa", "background/texts"], [*folds, *retained], [*folds[1:], *retained]


def encode_rows(config: ReferenceConfig, tokenizer: Any, rows: Sequence[Row]) -> list[EncodedRow]:
    """Questions with their answers as one row each; texts in pieces that the model has positions for."""
    pieces: list[EncodedRow] = []
    for row in rows:
        if "text" in row:
            pieces.extend(encode_text(tokenizer, row["text"], max_length=config.model.positions))
        else:
            pieces.append(encode(tokenizer, row["question"], row["answer"], template=config.template))
    return pieces


def _digest(rows: Sequence[EncodedRow]) -> str:
    return hashlib.sha256(json.dumps([dict(row) for row in rows]).encode()).hexdigest()
