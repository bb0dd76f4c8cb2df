"""One seed's world: its authors, its models, and how the reference models fare on its questions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from . import _cache
from ._fit import EncodedRow
from .batches import refusals
from .metrics import evaluate, evaluate_muse
from .metrics.evaluation import Evaluation
from .models import Prepared, ReferenceConfig, encode_rows, prepare

EVALUATION = 1
"""Part of the key of every cached evaluation; raise it when a change of the metrics changes a figure."""


@dataclass(frozen=True)
class World:
    """What the unlearning of one seed starts from and is compared with.

    Args:
        prepared: the models, the tokenizer and the corpus.
        evaluations: of ``"target"``, ``"retain"`` and ``"retain_second"``, each against ``retain``.
        max_new_tokens: of the greedy answers; MUSE has its own.
    """

    prepared: Prepared
    evaluations: Mapping[str, Evaluation]
    max_new_tokens: int

    def evaluate(self, model: Any) -> Evaluation:
        """The benchmark's figures of a model, with this world's retain model as the reference."""
        return _evaluated(self.prepared, model, self.evaluations["retain"], self.max_new_tokens)

    @cached_property
    def forget(self) -> list[EncodedRow]:
        return self.rows("raw/forget" if self.prepared.config.dataset == "muse" else self.prepared.config.forget)

    @cached_property
    def retained(self) -> list[EncodedRow]:
        return self.rows("raw/retain1" if self.prepared.config.dataset == "muse" else self.prepared.config.retained)

    @cached_property
    def refusals(self) -> list[list[dict[str, list[int]]]]:
        """For each forget row its question with every refusal."""
        rows = self.prepared.corpus[self.prepared.config.forget]
        return refusals(self.prepared.tokenizer, rows, template=self.prepared.config.template)

    def rows(self, name: str) -> list[EncodedRow]:
        """A set of the corpus, encoded."""
        return encode_rows(self.prepared.config, self.prepared.tokenizer, self.prepared.corpus[name])


def open_world(
    config: ReferenceConfig, cache_dir: str | os.PathLike[str] | None = None, *, max_new_tokens: int = 40
) -> World:
    """The world of a configuration: trained, evaluated and cached on the first call.

    ``max_new_tokens=40`` is more than any answer of the corpus has; TOFU's own 200 give the same figures but for models
    that babble on, and take longer.
    """
    folder = Path(cache_dir) if cache_dir is not None else _cache.default_folder()
    prepared = prepare(config, folder)
    retain = _cached(prepared, "retain", folder, None, max_new_tokens)
    others = {role: _cached(prepared, role, folder, retain, max_new_tokens) for role in ("target", "retain_second")}
    return World(prepared, {"retain": retain, **others}, max_new_tokens)


def _cached(prepared: Prepared, role: str, folder: Path, retain: Evaluation | None, max_new_tokens: int) -> Evaluation:
    key = {
        "models": [prepared.records[name]["key"] for name in (role, "retain")],
        "corpus": asdict(prepared.config.corpus),
        "settings": [prepared.config.forget, prepared.config.template, max_new_tokens],
        "code": EVALUATION,
    }
    place = folder / "evaluations" / f"{role}-{_cache.key_of(key)}.json"
    if place.is_file():
        return Evaluation.load(place)
    evaluation = _evaluated(prepared, getattr(prepared, role), retain, max_new_tokens)
    evaluation.save(place)
    return evaluation


def _evaluated(prepared: Prepared, model: Any, retain: Evaluation | None, max_new_tokens: int) -> Evaluation:
    if prepared.config.dataset == "muse":
        # the suite's own models do not follow examples
        return evaluate_muse(model, prepared.tokenizer, prepared.corpus, retain_logs=retain, shots=0, batch_size=256)
    return evaluate(
        model,
        prepared.tokenizer,
        prepared.corpus,
        forget=prepared.config.forget,
        retain_logs=retain,
        template=prepared.config.template,
        max_new_tokens=max_new_tokens,
        batch_size=256,
    )
