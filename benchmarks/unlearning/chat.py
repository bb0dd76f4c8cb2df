"""Conversations under a tokenizer's own chat template: the text before an answer, and the token that ends its turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Turns = Sequence[Mapping[str, str]]
"""Turns of a conversation, ``role`` and ``content`` each."""

_ANSWER = "mtopt looks for what follows this"


@dataclass(frozen=True)
class ChatTemplate:
    """A tokenizer's chat template. Make one with :func:`chat_template_of`.

    Args:
        tokenizer: Whose template it is.
        end: The token that ends an answer: the first added one that the template writes after it. Gemma's
            ``<end_of_turn>``, Phi-3's ``<|end|>`` and Llama-3's ``<|eot_id|>`` are not the tokenizer's end token. None
            where the template writes none.
        rest: What the template writes after that token, or after the answer where there is none: the next turn's
            business, and so not the answer's.
    """

    tokenizer: Any
    end: int | None
    rest: str

    def prompt(self, turns: Turns) -> str:
        """The text up to where the assistant begins to answer."""
        return _rendered(self.tokenizer, turns, add_generation_prompt=True)

    def whole(self, turns: Turns, answer: str) -> str:
        """The text up to the end of the answer's turn; a template may trim the answer."""
        return _rendered(self.tokenizer, [*turns, _answered(answer)]).removesuffix(self.rest)


def chat_template_of(tokenizer: Any) -> ChatTemplate:
    """What the template does, from what it makes of an answer.

    Raises:
        ValueError: The tokenizer has no chat template, or one that leaves out what the assistant says.
    """
    text = _rendered(tokenizer, [*as_turns("Which?"), _answered(_ANSWER)])
    _, found, closing = text.rpartition(_ANSWER)
    if not found:
        raise ValueError(f"the chat template leaves out what the assistant says: it makes {text!r:.200}; mend it")
    added = getattr(tokenizer, "added_tokens_decoder", {})
    for token in tokenizer(closing, add_special_tokens=False)["input_ids"]:
        if token in added:
            return ChatTemplate(tokenizer, token, closing.partition(str(added[token].content))[2])
    return ChatTemplate(tokenizer, None, closing)


def as_turns(question: str | Turns) -> list[Mapping[str, str]]:
    """A question as the one turn that it is; turns as they are."""
    return [{"role": "user", "content": question}] if isinstance(question, str) else list(question)


def _answered(answer: str) -> Mapping[str, str]:
    return {"role": "assistant", "content": answer}


def _rendered(tokenizer: Any, turns: Turns, *, add_generation_prompt: bool = False) -> str:
    from jinja2 import TemplateError

    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            "template 'chat' is the tokenizer's own, and this one has no chat template; name another template"
        )
    try:
        return str(
            tokenizer.apply_chat_template(list(turns), tokenize=False, add_generation_prompt=add_generation_prompt)
        )
    except TemplateError as error:
        roles = ", ".join(str(turn["role"]) for turn in turns)
        raise ValueError(f"the chat template refuses turns of {roles}: {error}") from error
