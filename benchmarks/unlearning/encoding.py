"""From a question and an answer to token ids and labels, and from those to batches. Right padding throughout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .chat import Turns, as_turns, chat_template_of

IGNORED = -100
"""The label of a position that is not scored: the prompt's, and padding."""

TEMPLATES = {
    "plain": "Question: {question}\nAnswer: {answer}",
    "llama-2": "[INST] {question} [/INST] {answer}",
}
"""Named templates. ``plain`` is TOFU's for phi-1.5, MUSE's for its questions and this suite's own; ``"chat"`` (not
listed) is the tokenizer's own chat template."""


def encode(
    tokenizer: Any, question: str | Turns, answer: str, *, template: str = "plain", max_length: int | None = None
) -> dict[str, list[int]]:
    """Token ids of one question and answer, with labels on the answer and the token that ends it.

    The filled template is tokenised as one text, as a model would read it; what it has in common with the tokenised
    prompt (the template up to the answer) is the prompt, labelled -100. So the prompt that generation starts from is
    ``input_ids`` where the label is -100, whatever the tokenizer does at the border. The end is the
    tokenizer's, or that of a turn in its chat template (:class:`~mtopt_suites.unlearning.chat.ChatTemplate`).

    Args:
        tokenizer: A Hugging Face tokenizer with an ``eos_token_id``.
        question: Text, or the turns of a conversation up to the answer.
        answer: Text; may be empty, when only the prompt is wanted: the one label left is the end.
        template: A name of :data:`TEMPLATES`, ``"chat"`` for the tokenizer's chat template, or a text that holds
            ``{question}`` and ends with ``{answer}``.
        max_length: The most tokens allowed; longer raises. None: no limit.

    Returns:
        ``input_ids`` and ``labels``, lists of the same length; a label is the id at its own position (the shift by one
        is the loss's business) or -100.

    Raises:
        ValueError: An unknown template, a tokenizer without an end token, several turns without a chat template, or
            more than ``max_length`` tokens: an answer cut short would be scored as if it were whole.
    """
    (row,) = encode_all(tokenizer, [(question, answer)], template=template, max_length=max_length)
    return row


def encode_all(
    tokenizer: Any, pairs: Sequence[tuple[str | Turns, str]], *, template: str = "plain", max_length: int | None = None
) -> list[dict[str, list[int]]]:
    """:func:`encode` of each question and answer; a call of the tokenizer costs as much for a thousand as for ten."""
    if not pairs:
        return []
    end = None
    if template == "chat":
        chat = chat_template_of(tokenizer)
        end = chat.end
        prompts = [chat.prompt(as_turns(question)) for question, _ in pairs]
        texts = [chat.whole(as_turns(question), answer) for question, answer in pairs]
    else:
        prompts = [_prompt(question, template) for question, _ in pairs]
        texts = [prompt + answer for prompt, (_, answer) in zip(prompts, pairs, strict=True)]
    special = template != "chat"  # a chat template brings its own
    starts = tokenizer(prompts, add_special_tokens=special)["input_ids"]
    wholes = tokenizer(texts, add_special_tokens=special)["input_ids"]
    end = _end(tokenizer) if end is None else end
    return [
        _ended(whole, end, _common(start, whole), max_length, question)
        for start, whole, (question, _) in zip(starts, wholes, pairs, strict=True)
    ]


def encode_text(tokenizer: Any, text: str, *, max_length: int | None = None) -> list[dict[str, list[int]]]:
    """Token ids of a plain text, every token a label, in pieces of at most ``max_length``; the last one ends with the
    end-of-sequence token. None: one piece. Where a single token is left over, nothing before it in its piece could
    predict it: the token before is there once more, without a label.

    Raises:
        ValueError: A text without a token, or ``max_length`` below 2.
    """
    if max_length is not None and max_length < 2:
        raise ValueError(f"max_length must be at least 2, a token and the one before it, got {max_length}")
    ids = tokenizer(text)["input_ids"]
    ids = [*ids, _end(tokenizer)] if ids[-1:] != [_end(tokenizer)] else ids
    if len(ids) < 2:
        raise ValueError(f"the text {text!r:.80} has no token besides its end, so nothing is learned; leave it out")
    length = max_length or len(ids)
    pieces = [
        {"input_ids": ids[start : start + length], "labels": ids[start : start + length]}
        for start in range(0, len(ids), length)
    ]
    if len(pieces[-1]["input_ids"]) == 1:
        pieces[-1] = {"input_ids": ids[-2:], "labels": [IGNORED, ids[-1]]}
    return pieces


def collate(rows: Sequence[Mapping[str, Sequence[int]]], pad_id: int) -> dict[str, Tensor]:
    """Encoded rows as one batch, padded on the right to the longest.

    Returns:
        ``input_ids``, ``attention_mask`` (1 on tokens) and ``labels`` (-100 on padding), (B, T) int64 each.
    """
    if not rows:
        raise ValueError("rows is empty: a batch needs at least one encoded row")
    shape = len(rows), max(len(row["input_ids"]) for row in rows)
    input_ids = torch.full(shape, pad_id, dtype=torch.long)
    attention_mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        input_ids[place, :length] = torch.tensor(row["input_ids"])
        attention_mask[place, :length] = 1
        labels[place, :length] = torch.tensor(row["labels"])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def _common(prompt: Sequence[int], whole: Sequence[int]) -> int:
    """How many tokens the two begin with alike."""
    start = 0
    while start < min(len(prompt), len(whole)) and prompt[start] == whole[start]:
        start += 1
    return start


def _prompt(question: str | Turns, template: str) -> str:
    """The text before the answer."""
    text = TEMPLATES.get(template, template)
    if "{question}" not in text or not text.endswith("{answer}"):
        raise ValueError(
            f"template must be one of {', '.join([*TEMPLATES, 'chat'])}, or hold {{question}} and end with {{answer}}; "
            f"got {template!r}"
        )
    turns = as_turns(question)
    if len(turns) != 1:
        roles = ", ".join(turn["role"] for turn in turns)
        raise ValueError(f"template {template!r} takes one question, got turns of {roles}; template 'chat' takes them")
    return text.removesuffix("{answer}").replace("{question}", turns[0]["content"])


def _ended(ids: list[int], end: int, start: int, max_length: int | None, question: str | Turns) -> dict[str, list[int]]:
    """The ids with the end token (once: some tokenizers add it themselves) and their labels from ``start`` on."""
    ids = [*ids, end] if ids[-1:] != [end] else list(ids)
    if max_length is not None and len(ids) > max_length:
        raise ValueError(
            f"the question and answer have {len(ids)} tokens, more than max_length={max_length}; raise max_length or "
            f"leave the row out. The question: {as_turns(question)[-1]['content'][:80]!r}"
        )
    return {"input_ids": ids, "labels": [IGNORED] * start + ids[start:]}


def _end(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no eos_token; set it, so that the model learns where an answer ends")
    return int(tokenizer.eos_token_id)
