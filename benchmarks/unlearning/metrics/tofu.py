"""TOFU's evaluation of one model: all answers in one teacher-forced run, then greedy answers, then the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..corpus import Corpus
from ..encoding import encode_all
from .evaluation import Evaluation, Items, Logs, opened, same_items
from .generation import answer_of, generate, prompt_of
from .membership import (
    ATTACKS,
    attack_auc,
    attack_scores,
    gradient_norms,
    tofu_privleak,
)
from .memorisation import exact_memorisation, extraction_strength
from .scoring import TokenScores, score_tokens
from .similarity import rouge_l
from .truth_ratio import (
    aggregate,
    forget_quality,
    log_truth_ratio,
    model_utility,
    probability_among,
)

UTILITY_SETS = ("retain", "real_authors", "world_facts")
ATTACKED = ("forget", "holdout")
"""The sets that membership inference compares."""


def evaluate(
    model: Any,
    tokenizer: Any,
    corpus: Corpus,
    *,
    forget: str = "forget10",
    retain_logs: Logs | None = None,
    reference_logs: Logs | None = None,
    definition: str = "tofu-code",
    template: str = "plain",
    max_new_tokens: int = 200,
    batch_size: int = 64,
    gradient_norm: bool = False,
) -> Evaluation:
    """All of TOFU's figures, extraction, memorisation and membership, with a record of every item.

    Args:
        model: Any Hugging Face causal language model; it is not changed.
        tokenizer: Its own, with an end token.
        corpus: Holds ``<forget>_perturbed``, ``retain_perturbed``, ``real_authors_perturbed`` and
            ``world_facts_perturbed``, and ``holdoutXX`` for membership: without that those figures are None.
        forget: ``"forget01"``, ``"forget05"`` or ``"forget10"``.
        retain_logs: The evaluation of a model trained without the set to forget, or the path where it is saved. None:
            no forget quality, and PrivLeak against an AUC of one half.
        reference_logs: The same of any model that was not trained on the set to forget, for the ``reference`` attack.
        definition: Of the truth ratio, see :func:`~mtopt_suites.unlearning.metrics.truth_ratio.log_truth_ratio`.
        template: As in :func:`mtopt_suites.unlearning.encoding.encode`; the one that the model was trained with.
        max_new_tokens: For each greedy answer (TOFU: 200).
        batch_size: Texts at once; it changes results by rounding only.
        gradient_norm: Whether to make the attack of that name, too, a backward pass for each text to forget or held out
            (:func:`~mtopt_suites.unlearning.metrics.membership.gradient_norms`).

    Returns:
        The summary of :func:`summarise`; items by ``"forget"``, ``"retain"``, ``"real_authors"``, ``"world_facts"`` and
        ``"holdout"``, as :func:`measure` records them.
    """
    items = measure(
        model,
        tokenizer,
        corpus,
        forget=forget,
        template=template,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        gradient_norm=gradient_norm,
    )
    summary = summarise(items, retain_logs=retain_logs, reference_logs=reference_logs, definition=definition)
    settings = {"forget": forget, "definition": definition, "template": template, "max_new_tokens": max_new_tokens}
    return Evaluation(summary, items, settings)


def measure(
    model: Any,
    tokenizer: Any,
    corpus: Corpus,
    *,
    forget: str = "forget10",
    template: str = "plain",
    max_new_tokens: int = 200,
    batch_size: int = 64,
    gradient_norm: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """What the model does on every item; the slow half of :func:`evaluate`, whose arguments these are.

    An item holds ``question``, ``answer``, ``loss`` (mean -log p over the answer's tokens and the end, nats),
    ``probability`` (exp(-loss)), ``tokens`` (with the end), ``exact_memorisation``, ``extraction_strength``,
    ``exact_match`` (greedy generation gives this answer and ends); but for held-out items ``perturbed_losses``,
    ``generation`` and ``rouge_l_recall``; ``paraphrased_loss`` where the set has paraphrases; ``membership`` (scores by
    attack) on the items to forget and the held-out ones.
    """
    sets = _sets(corpus, forget)
    items = score_answers(model, tokenizer, sets, template=template, batch_size=batch_size, gradient_norm=gradient_norm)
    asked = [item for name in ("forget", *UTILITY_SETS) for item in items[name]]
    add_generations(model, tokenizer, asked, template=template, max_new_tokens=max_new_tokens, batch_size=batch_size)
    return items


def score_answers(
    model: Any,
    tokenizer: Any,
    sets: Mapping[str, list[dict[str, Any]]],
    *,
    template: str = "plain",
    batch_size: int = 64,
    gradient_norm: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """The teacher-forced half of :func:`measure`, on sets of any names: an item for each of their rows.

    ``membership`` is of the sets ``"forget"`` and ``"holdout"``.
    """
    pairs = [(row["question"], answer) for part in sets.values() for row in part for answer in _answers(row)]
    rows = encode_all(tokenizer, pairs, template=template)
    for (question, answer), tokens in zip(pairs, rows, strict=True):
        if len(answer_of(tokens)) < 2:
            raise ValueError(f"{answer!r} has no token to score, as an answer to {question!r:.80}; leave the row out")
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    scores = iter(score_tokens(model, rows, pad_id=pad_id, batch_size=batch_size))

    items: dict[str, list[dict[str, Any]]] = {}
    for name, part in sets.items():
        items[name] = []
        for row in part:
            own = next(scores)
            item = {"question": row["question"], "answer": row["answer"], **score_figures(own)}
            if "paraphrased_answer" in row:
                item["paraphrased_loss"] = next(scores).loss
            if "perturbed_answer" in row:
                item["perturbed_losses"] = [next(scores).loss for _ in row["perturbed_answer"]]
            if name in ATTACKED:
                item["membership"] = attack_scores(own, row["answer"])
            items[name].append(item)
    if gradient_norm:
        attacked = [item for name in ATTACKED for item in items.get(name, [])]
        encoded = encode_all(tokenizer, [(item["question"], item["answer"]) for item in attacked], template=template)
        for item, norm in zip(attacked, gradient_norms(model, encoded, pad_id=pad_id), strict=True):
            item["membership"]["gradient_norm"] = norm
    return items


def add_generations(
    model: Any,
    tokenizer: Any,
    items: Sequence[dict[str, Any]],
    *,
    template: str = "plain",
    max_new_tokens: int = 200,
    batch_size: int = 64,
) -> None:
    """The other half of :func:`measure`: ``generation`` and ``rouge_l_recall`` of the items that it is given."""
    encoded = encode_all(tokenizer, [(item["question"], item["answer"]) for item in items], template=template)
    # where every token and the end are the most probable ones, generation gives the answer: no need to run it
    unsure = [
        place for place, item in enumerate(items) if not (item["exact_match"] and item["tokens"] <= max_new_tokens)
    ]
    prompts = [prompt_of(encoded[place]) for place in unsure]
    ends = {answer_of(row)[-1] for row in encoded}
    texts = generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, ends=ends)
    generated = dict(zip(unsure, texts, strict=True))
    for place, item in enumerate(items):
        known = tokenizer.decode(answer_of(encoded[place])[:-1], skip_special_tokens=True).strip()
        item["generation"] = generated.get(place, known)
        item["rouge_l_recall"] = rouge_l(item["answer"], item["generation"], stem=True).recall


def summarise(
    items: Items,
    *,
    retain_logs: Logs | None = None,
    reference_logs: Logs | None = None,
    definition: str = "tofu-code",
) -> dict[str, float | None]:
    """The figures of recorded items; no model is needed, so another definition or retain model costs nothing.

    Returns:
        ``model_utility``; ``forget_quality`` (None without ``retain_logs``); ``<set>_probability``,
        ``<set>_rouge_l_recall`` and ``<set>_truth_ratio`` for the four sets; ``forget_`` and ``retain_``
        ``exact_match``, ``extraction_strength`` and ``exact_memorisation``; ``auc_<attack>`` for the six attacks and
        ``privleak`` (None without held-out items; ``auc_reference`` also without ``reference_logs``,
        ``auc_gradient_norm`` where it was not measured).
    """
    ratios = {name: log_truth_ratios(items, name, definition) for name in ("forget", *UTILITY_SETS)}
    summary: dict[str, float | None] = {"model_utility": None, "forget_quality": None}
    nine: list[float] = []
    for name, logs in ratios.items():
        figures = {
            "probability": _mean([_probability(item, name) for item in items[name]]),
            "rouge_l_recall": _mean([item["rouge_l_recall"] for item in items[name]]),
            "truth_ratio": aggregate(logs, forget=name == "forget", definition=definition),
        }
        summary.update({f"{name}_{figure}": value for figure, value in figures.items()})
        if name in UTILITY_SETS:
            nine.extend(figures.values())
    summary["model_utility"] = model_utility(nine)
    for name in ("forget", "retain"):
        for figure in ("exact_match", "extraction_strength", "exact_memorisation"):
            summary[f"{name}_{figure}"] = _mean([item[figure] for item in items[name]])

    retain = None if retain_logs is None else opened(retain_logs).items
    if retain is not None:
        same_items(items, retain, "forget", "question")
        summary["forget_quality"] = forget_quality(ratios["forget"], log_truth_ratios(retain, "forget", definition))
    reference = None if reference_logs is None else opened(reference_logs).items
    return {**summary, **_membership(items, retain, reference)}


def log_truth_ratios(items: Items, name: str, definition: str = "tofu-code") -> list[float]:
    """log R of each item of a set; the answer stands in for the paraphrase where there is none."""
    return [
        log_truth_ratio(
            item["paraphrased_loss" if "paraphrased_loss" in item else "loss"], item["perturbed_losses"], definition
        )
        for item in items[name]
    ]


def membership_aucs(items: Items, reference: Items | None = None) -> dict[str, float]:
    """The AUC of each attack made; ``reference`` only with a second model's items on the same sets, whose losses are
    subtracted."""
    scores = {
        attack: {name: [item["membership"][attack] for item in items[name]] for name in ("forget", "holdout")}
        for attack in (*ATTACKS, "gradient_norm")
        if attack in items["forget"][0]["membership"]
    }
    if reference is not None:
        for name in ("forget", "holdout"):
            same_items(items, reference, name, "question")
        scores["reference"] = {
            name: [mine["loss"] - other["loss"] for mine, other in zip(items[name], reference[name], strict=True)]
            for name in ("forget", "holdout")
        }
    return {attack: attack_auc(both["forget"], both["holdout"]) for attack, both in scores.items()}


def _membership(items: Items, retain: Items | None, reference: Items | None) -> dict[str, float | None]:
    figures: dict[str, float | None] = {f"auc_{attack}": None for attack in (*ATTACKS, "gradient_norm", "reference")}
    figures["privleak"] = None
    if "holdout" not in items:
        return figures
    aucs = membership_aucs(items, reference)
    figures.update({f"auc_{attack}": auc for attack, auc in aucs.items()})
    if retain is None:
        figures["privleak"] = tofu_privleak(aucs["min_k"])
    else:
        same_items(items, retain, "holdout", "question")
        figures["privleak"] = tofu_privleak(aucs["min_k"], membership_aucs(retain)["min_k"])
    return figures


def _sets(corpus: Corpus, forget: str) -> dict[str, list[dict[str, Any]]]:
    holdout = forget.replace("forget", "holdout") if forget.startswith("forget") else None
    return {
        "forget": corpus[f"{forget}_perturbed"],
        **{name: corpus[f"{name}_perturbed"] for name in UTILITY_SETS},
        **({"holdout": corpus[holdout]} if holdout is not None and holdout in corpus else {}),
    }


def _answers(row: Mapping[str, Any]) -> list[str]:
    """The answers to score, in the order in which :func:`measure` takes their scores."""
    paraphrase = [row["paraphrased_answer"]] if "paraphrased_answer" in row else []
    return [row["answer"], *paraphrase, *row.get("perturbed_answer", [])]


def score_figures(scores: TokenScores) -> dict[str, Any]:
    """The figures of one text that its tokens' scores give."""
    correct = scores.without_end().correct
    return {
        "loss": scores.loss,
        "probability": float(np.exp(-scores.loss)),
        "tokens": len(scores.correct),
        "exact_memorisation": exact_memorisation(correct),
        "extraction_strength": extraction_strength(correct),
        "exact_match": bool(scores.correct.all()),
    }


def _probability(item: Mapping[str, Any], name: str) -> float:
    """Of the answer; among the offered answers in the sets of general knowledge."""
    if name in ("forget", "retain"):
        return float(item["probability"])
    return probability_among(item["loss"], item["perturbed_losses"])


def _mean(values: list[Any]) -> float:
    return float(np.mean(values))
