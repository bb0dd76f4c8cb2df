"""MUSE's evaluation of one model: verbatim memory, knowledge, leakage; and how utility lasts over several requests."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..corpus import Corpus, Row
from ..encoding import TEMPLATES, encode
from .evaluation import Evaluation, Logs, opened, same_items
from .generation import generate, prompt_of
from .membership import attack_auc, min_k, muse_privleak
from .scoring import score_tokens
from .similarity import rouge_l

STOPS = ("\n\n", "\nQuestion", "Question:")
"""What ends the answer to a question that is asked after examples."""

Unlearn = Callable[[Any, list[Row]], Any]
"""From a model and the texts to forget to the unlearned model."""


def evaluate_muse(
    model: Any,
    tokenizer: Any,
    corpus: Corpus,
    *,
    retain_logs: Logs | None = None,
    auc_retrained: float | None = None,
    shots: int | None = None,
    batch_size: int = 32,
) -> Evaluation:
    """MUSE's four figures of one model, with a record of every item.

    Args:
        model: Any Hugging Face causal language model; it is not changed.
        tokenizer: Its own, with an end token.
        corpus: MUSE's sets by ``config/split``, as :func:`mtopt_suites.unlearning.muse.generate_muse` gives them.
        retain_logs: The evaluation (or its path) of a model trained without the set to forget, for PrivLeak.
        auc_retrained: Its AUC instead, in MUSE's convention, as one of
            :data:`~mtopt_suites.unlearning.metrics.membership.MUSE_RETRAINED_AUC`. With neither, or 0, PrivLeak is
            None.
        shots: Examples before each question. None: all that ``.._icl`` hold, MUSE's ten. 0 for models that cannot
            follow them, such as the suite's own (:func:`mtopt_suites.unlearning.models.muse_reference`).
        batch_size: Texts at once; it changes results by rounding only.

    Returns:
        The summary ``verbmem_forget``, ``knowmem_forget``, ``knowmem_retain`` (MUSE's utility; all three in [0, 1]; the
        paper's tables are in percent), ``auc_min_k`` (MUSE's convention: 0 is full memory, 1/2 none) and ``privleak``
        in percent; items by ``"verbmem_forget"``, ``"knowmem_forget"``, ``"knowmem_retain"``, ``"privleak_forget"``
        and ``"privleak_holdout"``.
    """
    if retain_logs is not None and auc_retrained is not None:
        raise ValueError("give retain_logs or auc_retrained, not both: they say the same of the retrained model")
    items = {
        "verbmem_forget": verbatim_memory(model, tokenizer, corpus["verbmem/forget"], batch_size=batch_size),
        **{
            f"knowmem_{name}": knowledge(
                model,
                tokenizer,
                corpus[f"knowmem/{name}_qa"],
                corpus[f"knowmem/{name}_qa_icl"][:shots],
                batch_size=batch_size,
            )
            for name in ("forget", "retain")
        },
        **{
            f"privleak_{name}": leakage(model, tokenizer, corpus[f"privleak/{name}"], batch_size=batch_size)
            for name in ("forget", "holdout")
        },
    }
    auc = _muse_auc(items)
    if retain_logs is not None:
        others = opened(retain_logs).items
        for name in ("privleak_forget", "privleak_holdout"):
            same_items(items, others, name, "text")
        auc_retrained = _muse_auc(others)
    summary: dict[str, float | None] = {
        name: _mean(items[name]) for name in ("verbmem_forget", "knowmem_forget", "knowmem_retain")
    }
    summary["auc_min_k"] = auc
    summary["privleak"] = muse_privleak(auc, auc_retrained) if auc_retrained else None
    return Evaluation(summary, items, {"auc_retrained": auc_retrained, "shots": shots})


def verbatim_memory(
    model: Any, tokenizer: Any, rows: Sequence[Row], *, max_new_tokens: int = 128, batch_size: int = 32
) -> list[dict[str, Any]]:
    """Greedy continuations of the rows' ``prompt``, against the first ``max_new_tokens`` tokens of their ``gt``: an
    item holds both texts, the ``generation`` and ``rouge_l_f1`` (no stemming)."""
    prompts = [_without_added_end(tokenizer, row["prompt"]) for row in rows]
    texts = generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size)
    items = []
    for row, text in zip(rows, texts, strict=True):
        kept = tokenizer(row["gt"], add_special_tokens=False)["input_ids"][:max_new_tokens]
        target = tokenizer.decode(kept, skip_special_tokens=True).strip()
        f1 = rouge_l(target, text, stem=False).f1
        items.append({"prompt": row["prompt"], "gt": target, "generation": text, "rouge_l_f1": f1})
    return items


def knowledge(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    examples: Sequence[Row],
    *,
    max_new_tokens: int = 32,
    batch_size: int = 32,
) -> list[dict[str, Any]]:
    """Greedy answers to the rows' questions after the ``examples``, each with its answer and an empty line, cut at
    :data:`STOPS`: an item holds the texts, the ``generation`` and ``rouge_l_f1`` (no stemming).

    MUSE's prompt ends with a space; here it ends where the tokens of prompt and answer part
    (:func:`mtopt_suites.unlearning.encoding.encode`), which for most tokenizers is before that space, as in training.
    """
    plain = TEMPLATES["plain"]
    # all that stands before the last question goes in as part of it, after the template's own first word
    shown = "".join(plain.format(**example) + "\n\n" for example in examples)
    opening = plain[: plain.index("{question}")]
    prompts = [
        prompt_of(encode(tokenizer, (shown + opening + row["question"]).removeprefix(opening), row["answer"]))
        for row in rows
    ]
    texts = generate(model, tokenizer, prompts, max_new_tokens=max_new_tokens, batch_size=batch_size, stops=STOPS)
    return [
        {
            "question": row["question"],
            "answer": row["answer"],
            "generation": text,
            "rouge_l_f1": rouge_l(row["answer"], text, stem=False).f1,
        }
        for row, text in zip(rows, texts, strict=True)
    ]


def leakage(
    model: Any, tokenizer: Any, rows: Sequence[Row], *, share: float = 0.4, max_tokens: int = 2048, batch_size: int = 32
) -> list[dict[str, Any]]:
    """``min_k`` of each row's ``text`` (high where it is unlikely to have been trained on): over all its tokens but the
    first, which nothing predicts; no end token is added. Texts are cut after ``max_tokens``."""
    ids = [_without_added_end(tokenizer, row["text"])[:max_tokens] for row in rows]
    encoded = [{"input_ids": tokens, "labels": tokens} for tokens in ids]
    pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    scores = score_tokens(model, encoded, pad_id=pad_id, batch_size=batch_size)
    return [
        {"text": row["text"], "loss": score.loss, "min_k": min_k(score.log_probabilities, share)}
        for row, score in zip(rows, scores, strict=True)
    ]


def scalability(
    target: Any, unlearn: Unlearn, tokenizer: Any, corpus: Corpus, *, shots: int | None = None
) -> list[dict[str, float]]:
    """MUSE's utility after forgetting ever larger sets, each from the target anew: ``scal/forget_1``, ...

    Args:
        target: The model before unlearning; it is not changed, ``unlearn`` gets a copy.
        unlearn: Takes a model, which it may change, and the texts to forget; returns the unlearned model.
        tokenizer, corpus, shots: As in :func:`evaluate_muse`.

    Returns:
        A point a set, and the target first: ``requests`` (0 for the target), ``texts`` (forgotten in all) and
        ``knowmem_retain``.
    """
    points = [_point(target, tokenizer, corpus, 0, 0, shots)]
    for request, rows in _folds(corpus, "scal"):
        points.append(_point(unlearn(copy.deepcopy(target), rows), tokenizer, corpus, request, len(rows), shots))
    return points


def sustainability(
    target: Any, unlearn: Unlearn, tokenizer: Any, corpus: Corpus, *, shots: int | None = None
) -> list[dict[str, float]]:
    """MUSE's utility after one request upon another: ``sust/forget_1``, then ``sust/forget_2`` from what that left, ...

    Arguments and result are those of :func:`scalability`.
    """
    points = [_point(target, tokenizer, corpus, 0, 0, shots)]
    model, forgotten = copy.deepcopy(target), 0
    for request, rows in _folds(corpus, "sust"):
        model, forgotten = unlearn(model, rows), forgotten + len(rows)
        points.append(_point(model, tokenizer, corpus, request, forgotten, shots))
    return points


def _point(
    model: Any, tokenizer: Any, corpus: Corpus, request: int, forgotten: int, shots: int | None
) -> dict[str, float]:
    items = knowledge(model, tokenizer, corpus["knowmem/retain_qa"], corpus["knowmem/retain_qa_icl"][:shots])
    return {"requests": request, "texts": forgotten, "knowmem_retain": _mean(items)}


def _folds(corpus: Corpus, config: str) -> list[tuple[int, list[Row]]]:
    """The sets to forget in their order, numbered from one."""
    folds: list[tuple[int, list[Row]]] = []
    while f"{config}/forget_{len(folds) + 1}" in corpus or not folds:
        folds.append((len(folds) + 1, corpus[f"{config}/forget_{len(folds) + 1}"]))
    return folds


def _muse_auc(items: Any) -> float:
    """In MUSE's convention the held-out texts are the members."""
    return 1 - attack_auc(*([item["min_k"] for item in items[f"privleak_{name}"]] for name in ("forget", "holdout")))


def _without_added_end(tokenizer: Any, text: str) -> list[int]:
    """The tokens of a text, without the end token that some tokenizers add."""
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids


def _mean(items: Sequence[dict[str, Any]]) -> float:
    return float(np.mean([item["rouge_l_f1"] for item in items]))
