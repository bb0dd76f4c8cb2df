"""What the study's methods start from: a target that knows its data by heart, and one that was stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

import mtopt

from ..corpus import Corpus, CorpusConfig
from ..metrics import evaluate
from ..metrics.scoring import score_tokens
from ..models import FitConfig, ModelConfig, ReferenceConfig
from ..world import World, open_world

EPOCHS = {"memorised": 12, "third": 4}
"""Of fine-tuning, by world. After the first the retain loss is next to zero, after a third of them it is not."""

QUESTIONS = 10
"""Of each of TOFU's four sets, for the utility: the smallest set has as many."""


def config_of(world: str, seed: int) -> ReferenceConfig:
    """20 authors of five questions each, two of them to forget; a quarter of the suite's own world."""
    return ReferenceConfig(
        corpus=CorpusConfig(authors=20, questions=5, background_authors=40, countries=10, seed=seed),
        model=ModelConfig(vocabulary=600),
        finetuning=FitConfig(epochs=EPOCHS[world], learning_rate=5e-3, replay=100),
        seed=seed,
    )


@dataclass(frozen=True)
class Start:
    """One seed's world, and how a model of it is judged.

    Args:
        world: the models and the rows.
        judged: the questions of the utility.
        wanted: what equal forgetting is: the probability that the retrained model gives to the answers to forget.
        untouched: the utility of the model before unlearning.
    """

    world: World
    judged: Corpus
    wanted: float
    untouched: float

    def probability(self, model: torch.nn.Module) -> float:
        """TOFU's forget probability, the mean over the answers to forget; NaN for a model that has diverged."""
        return _probability(self.world, model)

    def utility(self, model: torch.nn.Module) -> float:
        """TOFU's model utility; 0 for a model that has diverged."""
        return _utility(self.world, self.judged, model)


@lru_cache(maxsize=4)
def open_start(world: str, seed: int, cache_dir: Path | None = None) -> Start:
    """The start of a seed, trained on the first call and cached on disk; kept in this process."""
    opened = open_world(config_of(world, seed), cache_dir)
    names = ("forget10_perturbed", "retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
    judged = Corpus({name: opened.prepared.corpus[name][:QUESTIONS] for name in names})
    prepared = opened.prepared
    wanted, untouched = _probability(opened, prepared.retain), _utility(opened, judged, prepared.target)
    return Start(opened, judged, wanted, untouched)


def _probability(world: World, model: torch.nn.Module) -> float:
    try:
        scores: Sequence[float] = [
            score.loss for score in score_tokens(model, world.forget, pad_id=world.prepared.tokenizer.pad_token_id)
        ]
    except mtopt.NonFiniteError:
        return float("nan")
    return float(np.exp(-np.array(scores)).mean())


def _utility(world: World, judged: Corpus, model: torch.nn.Module) -> float:
    prepared = world.prepared
    try:
        evaluation = evaluate(
            model,
            prepared.tokenizer,
            judged,
            forget=prepared.config.forget,
            template=prepared.config.template,
            max_new_tokens=world.max_new_tokens,
            batch_size=256,
        )
    except mtopt.NonFiniteError:
        return 0.0
    utility = evaluation.summary["model_utility"]
    assert utility is not None
    return utility
