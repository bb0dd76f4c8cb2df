"""What can be measured of a model on rows of one's own: likelihood, memorisation, ROUGE, membership inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..corpus import Row
from ..encoding import encode_all, encode_text
from ..metrics import Evaluation
from ..metrics.generation import generate, prompt_of
from ..metrics.membership import attack_scores, tofu_privleak
from ..metrics.scoring import TokenScores, score_tokens
from ..metrics.similarity import rouge_l
from ..metrics.tofu import (
    ATTACKED,
    add_generations,
    log_truth_ratios,
    membership_aucs,
    score_answers,
    score_figures,
)
from ..metrics.truth_ratio import aggregate

FIGURES = {
    "nll": "loss",
    "probability": "probability",
    "rouge_l_recall": "rouge_l_recall",
    "exact_memorisation": "exact_memorisation",
    "extraction_strength": "extraction_strength",
    "exact_match": "exact_match",
}
"""The figures of a set, and what of its items each is the mean of."""

Sets = Mapping[str, list[Row]]


def is_text(rows: Sequence[Row]) -> bool:
    """Whether a set holds texts, and not questions."""
    return "text" in rows[0]


def measure(
    model: Any,
    tokenizer: Any,
    sets: Sets,
    *,
    template: str,
    max_length: int | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 16,
) -> Evaluation:
    """The figures of every set, with a record of every item.

    Args:
        model: Any Hugging Face causal language model; it is not changed.
        tokenizer: Its own, with an end token.
        sets: By name, rows of :func:`~mtopt_suites.unlearning.own.read_rows`: ``"forget"`` and ``"retain"``,
            ``"holdout"`` for membership inference, and any others.
        template: As in :func:`mtopt_suites.unlearning.encoding.encode`.
        max_length: Tokens of a piece of a text, as in training; what is generated fits into them, too.
        max_new_tokens: Of an answer, and of what follows the first half of a text.
        batch_size: Rows at once; it changes results by rounding only.

    Returns:
        For each set ``<set>_nll`` (nats a token) and the others of :data:`FIGURES`; ``<set>_truth_ratio`` where its
        rows have wrong answers; ``auc_<attack>`` and ``privleak`` (against an AUC of one half) with a holdout.
    """
    questions = {name: rows for name, rows in sets.items() if not is_text(rows)}
    items: dict[str, list[dict[str, Any]]] = {}
    if questions:
        items.update(score_answers(model, tokenizer, questions, template=template, batch_size=batch_size))
        asked = [item for name in questions for item in items[name]]
        room = min(max_new_tokens, _room(tokenizer, asked, template, max_length))
        add_generations(model, tokenizer, asked, template=template, max_new_tokens=room, batch_size=batch_size)
    for name, rows in sets.items():
        if is_text(rows):
            items[name] = _score_texts(
                model,
                tokenizer,
                rows,
                attacked=name in ATTACKED,
                max_length=max_length,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
            )
    ordered = {name: items[name] for name in sets}
    settings = {"template": template, "max_length": max_length, "max_new_tokens": max_new_tokens}
    return Evaluation(_summarise(ordered), ordered, settings)


def _summarise(items: Mapping[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    summary: dict[str, float | None] = {}
    for name, part in items.items():
        for figure, key in FIGURES.items():
            values = [item[key] for item in part if item[key] is not None]
            summary[f"{name}_{figure}"] = float(np.mean(values)) if values else None
        if all("perturbed_losses" in item for item in part):
            summary[f"{name}_truth_ratio"] = aggregate(log_truth_ratios(items, name), forget=name == "forget")
    if "holdout" in items:
        aucs = membership_aucs(items)
        summary.update({f"auc_{attack}": auc for attack, auc in aucs.items()})
        summary["privleak"] = tofu_privleak(aucs["min_k"])
    return summary


def _room(tokenizer: Any, items: Sequence[Mapping[str, Any]], template: str, limit: int | None) -> int:
    """The tokens that the model has room for after the longest of the questions."""
    if limit is None:
        return 1 << 20
    rows = encode_all(tokenizer, [(item["question"], "") for item in items], template=template)
    return max(1, limit - max(len(prompt_of(row)) for row in rows) - 1)


def _score_texts(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    attacked: bool,
    max_length: int | None,
    max_new_tokens: int,
    batch_size: int,
) -> list[dict[str, Any]]:
    """An item for each text. Its ``generation`` continues the first half of its first piece."""
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    pieces = [encode_text(tokenizer, row["text"], max_length=max_length) for row in rows]
    scores = iter(
        score_tokens(model, [piece for part in pieces for piece in part], pad_id=pad_id, batch_size=batch_size)
    )
    items = []
    for row, part in zip(rows, pieces, strict=True):
        own = _joined(scores, len(part))
        if len(own.correct) < 2:
            raise ValueError(f"{row['text']!r:.80} is one token, which nothing comes before; leave the row out")
        item = {"text": row["text"], **score_figures(own)}
        if attacked:
            item["membership"] = attack_scores(own, row["text"])
        items.append(item)
    first = [part[0]["input_ids"][: -1 if len(part) == 1 else None] for part in pieces]
    halves = [tokens[: max(1, len(tokens) // 2)] for tokens in first]
    room = max_new_tokens if max_length is None else min(max_new_tokens, max_length - max(map(len, halves)))
    texts = generate(model, tokenizer, halves, max_new_tokens=room, batch_size=batch_size)
    for item, tokens, half, text in zip(items, first, halves, texts, strict=True):
        target = tokenizer.decode(tokens[len(half) : len(half) + room], skip_special_tokens=True)
        item["prompt"] = tokenizer.decode(half, skip_special_tokens=True)
        item["continuation"], item["generation"] = target, text
        item["rouge_l_recall"] = rouge_l(target, text, stem=True).recall if target.strip() else None
    return items


def _joined(scores: Iterator[TokenScores], count: int) -> TokenScores:
    """The scores of a text whose pieces come next."""
    parts = [next(scores) for _ in range(count)]
    return TokenScores(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("log_probabilities", "standardised", "correct")
        )
    )
