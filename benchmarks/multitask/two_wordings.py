"""Two wordings of one answer, on a tiny Llama: two losses of which no model can lower both, with a known bound.

The suite of unlearning states each fact about an author in two ways, as "Ada was born in Rome." and as "The birthplace
of Ada is Rome.". A Llama that knows both is asked the question that goes with the first, and trained to answer in
either: objective k is the negative log-likelihood of the whole answer in wording k, in nats, the mean over questions.
Two different answers to one question have probabilities that sum to one at most, and so for any model

    exp(-L_1) + exp(-L_2) <= 1,

for the means, too, as the left side is convex. Who knows every fact and answers in wording k with probability p_k is on
the bound, at L_k = -log p_k, which is also where linear scalarization with the preference p is least.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mtopt.training import HyperNetwork, PaLoRA, PaMaL, PreferenceConditioned, PreferenceTrainer

from ..unlearning.batches import EncodedRow
from ..unlearning.corpus import CorpusConfig, draw_facts
from ..unlearning.encoding import IGNORED, collate, encode_all
from ..unlearning.models import FitConfig, ModelConfig, build, fit, train_tokenizer

AUTHORS = {"train": range(48), "validation": range(48, 56), "test": range(56, 64)}
"""Of whom the questions are; the model knows them all from before."""
QUESTIONS = 8
BATCH = 8
MODEL = ModelConfig(hidden=64, layers=2, heads=4, vocabulary=800, positions=128)
PRETRAINING = FitConfig(epochs=12, learning_rate=6e-3)
WORDINGS = ("answer", "paraphrased_answer")


class AnswerLoss(nn.Module):
    """A causal language model and what it makes of answers: ``loss(input_ids, labels)``, their mean of -log p."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """For both wordings at once: ids and labels (B, 2, T) -> (2,)."""
        return answer_loss(self.model(input_ids=input_ids.flatten(0, 1), use_cache=False).logits, labels)


class Widened(nn.Module):
    """The same for :class:`mtopt.training.PreferenceConditioned`: of embeddings that have K more channels.

    A linear map brings them back to H channels, at first by leaving the preference out.
    """

    def __init__(self, model: Any, num_objectives: int) -> None:
        super().__init__()
        self.model = model
        width = model.config.hidden_size
        self.narrow = nn.Conv1d(width + num_objectives, width, 1)
        with torch.no_grad():
            self.narrow.weight.copy_(torch.eye(width, width + num_objectives).unsqueeze(2))
            self.narrow.bias.zero_()  # type: ignore[union-attr]

    def forward(self, channels: Tensor, labels: Tensor) -> Tensor:
        """(2 B, H + K, T) and labels (B, 2, T) -> (2,)."""
        inputs = self.narrow(channels).transpose(1, 2)
        return answer_loss(self.model(inputs_embeds=inputs, use_cache=False).logits, labels)


class ConditionedAnswerLoss(nn.Module):
    """Answers of a model to whose embedded tokens the preference is appended, ``loss(ids, labels, preference=p)``."""

    def __init__(self, model: Any, num_objectives: int) -> None:
        super().__init__()
        self.conditioned = PreferenceConditioned(Widened(model, num_objectives))

    def forward(self, input_ids: Tensor, labels: Tensor, *, preference: Tensor) -> Tensor:
        """Ids and labels (B, 2, T) -> (2,)."""
        llama: Any = self.conditioned.model.model
        embedded = llama.get_input_embeddings()(input_ids.flatten(0, 1))
        found: Tensor = self.conditioned(embedded.transpose(1, 2), labels, preference=preference)
        return found


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """-log p of whole answers, the mean over questions: logits (2 B, T, V), labels (B, 2, T) -> (2,)."""
    following = labels.flatten(0, 1)[:, 1:]
    each = cross_entropy(logits[:, :-1].transpose(1, 2), following, ignore_index=IGNORED, reduction="none")
    return each.sum(1).view(-1, 2).mean(0)


class ForAllWordings(PreferenceTrainer):
    """The losses of the two wordings, by their names; they are what is judged, too."""

    def losses(self, batch: Any) -> Mapping[str, Tensor]:
        return dict(zip(WORDINGS, self.model(*batch, preference=self.preference), strict=True))


@dataclass(frozen=True)
class Known:
    """A Llama that knows its world, and the questions of each split, ids and labels (N, 2, T)."""

    model: Any
    splits: Mapping[str, TensorDataset]


@cache
def known() -> Known:
    """The same on every call. The model has learned each fact in both wordings, each behind a question of its own."""
    most = max(max(authors) for authors in AUTHORS.values()) + 1
    facts = draw_facts(CorpusConfig(questions=QUESTIONS, background_authors=most)).background
    told = [row for author in facts for fact in author for row in (fact.plain(), fact.paraphrased())]
    tokenizer = train_tokenizer((text for row in told for text in row.values()), MODEL.vocabulary)
    rows = encode_all(tokenizer, [(row["question"], row["answer"]) for row in told])
    model = build(MODEL, tokenizer)
    with torch.enable_grad():  # it may be first asked for in an evaluation
        fit(model, rows, PRETRAINING, pad_id=tokenizer.pad_token_id, seed=0)
    splits = {}
    for split, authors in AUTHORS.items():
        chosen = [fact for author in authors for fact in facts[author]]
        pairs = [(fact.say("question"), fact.say(wording)) for fact in chosen for wording in WORDINGS]
        encoded = encode_all(tokenizer, pairs)
        scored = [row for pair in zip(encoded[::2], encoded[1::2], strict=True) for row in scored_alike(*pair)]
        both = collate(scored, tokenizer.pad_token_id)
        splits[split] = TensorDataset(*(both[name].view(len(chosen), 2, -1) for name in ("input_ids", "labels")))
    return Known(model, splits)


def scored_alike(*rows: EncodedRow) -> list[EncodedRow]:
    """The rows with labels from one place on, the first that any of them has.

    Where a token of one answer begins with the space before it, and that space is a token by itself in the other, the
    latter would have it for given, and the two probabilities would not be of one event each after the same text.
    """
    start = min(next(place for place, label in enumerate(row["labels"]) if label != IGNORED) for row in rows)
    return [{"input_ids": r["input_ids"], "labels": [*r["labels"][:start], *r["input_ids"][start:]]} for r in rows]


def network() -> AnswerLoss:
    """A copy of the Llama that knows its world."""
    return AnswerLoss(copy.deepcopy(known().model))


def training_data(seed: int) -> DataLoader[Any]:
    """8 questions a batch in both wordings, in a seeded order."""
    order = torch.Generator().manual_seed(seed)
    return DataLoader(known().splits["train"], batch_size=BATCH, shuffle=True, generator=order)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "HyperNetwork, width 8": lambda: HyperNetwork(network(), 2, hidden=(8,)),
    "PreferenceConditioned": lambda: ConditionedAnswerLoss(network().model, 2),
    "PaMaL": lambda: PaMaL([network(), network()]),
    "PaLoRA, rank 4": lambda: PaLoRA(network(), 2, rank=4),
    "PaLoRA, rank 4, base frozen": lambda: PaLoRA(network(), 2, rank=4, train_base=False),
}
