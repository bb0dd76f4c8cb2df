"""Greedy continuation of many prompts at once, on any Hugging Face causal language model."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from ..encoding import IGNORED
from .scoring import device_of, evaluating


def prompt_of(row: dict[str, list[int]]) -> list[int]:
    """The tokens of an encoded question that come before its answer."""
    return [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED]


def answer_of(row: dict[str, list[int]]) -> list[int]:
    """The tokens of an encoded question that are its answer, the end included."""
    return [label for label in row["labels"] if label != IGNORED]


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int = 200,
    batch_size: int = 64,
    stops: Sequence[str] = (),
    ends: Collection[int] = (),
) -> list[str]:
    """The most probable next token again and again, until an end token or ``max_new_tokens``; the new text, stripped.

    Prompts of similar length share a batch, padded on the left with positions counted from each prompt's own start,
    and keep their keys and values, so that a step costs one token. The batch size changes the logits by rounding only.

    Args:
        model: A causal language model that keeps a cache; its mode is left as it was found.
        tokenizer: Its end token, and those of the model's generation configuration and of ``ends``, end a text.
        prompts: Token ids, one or more each.
        max_new_tokens: For each prompt.
        batch_size: Prompts at once.
        stops: Texts that end the answer: it is cut before the first occurrence of any.
        ends: Further end tokens: the one of a turn in a chat template is often none of the others.

    Raises:
        ValueError: An empty prompt, or one that leaves the model fewer than ``max_new_tokens`` positions.
    """
    longest = max((len(prompt) for prompt in prompts), default=0)
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("prompts holds an empty one; a prompt needs at least one token to continue from")
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and longest + max_new_tokens > limit:
        raise ValueError(
            f"the longest prompt has {longest} tokens, which with max_new_tokens={max_new_tokens} is more than the "
            f"{limit} positions of the model; lower max_new_tokens"
        )
    order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    texts, all_ends = [""] * len(prompts), _ends(model, tokenizer) | set(ends)
    with evaluating(model):
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            new = _continued(model, all_ends, [prompts[place] for place in places], max_new_tokens)
            for place, tokens in zip(places, new, strict=True):
                texts[place] = cut(tokenizer.decode(tokens, skip_special_tokens=True), stops)
    return texts


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first occurrence of any of ``stops``, without white space around it."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))].strip()


def _continued(model: Any, ends: set[int], prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """The new tokens of each prompt, without the end token."""
    device = device_of(model)
    input_ids, mask = _left_padded(prompts, min(ends), device)
    length = mask.sum(dim=1, keepdim=True)
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    accepted = inspect.signature(_unwrapped(model).forward).parameters
    new: list[list[int]] = [[] for _ in prompts]
    # the prompts that the rows of the batch belong to, and those of them that have not ended
    owners, going, cache = list(range(len(prompts))), set(range(len(prompts))), None
    for _ in range(most):
        options: dict[str, Any] = {"position_ids": positions} if "position_ids" in accepted else {}
        if "logits_to_keep" in accepted:
            options["logits_to_keep"] = 1
        output = model(
            input_ids=input_ids, attention_mask=mask, past_key_values=cache, use_cache=True, return_dict=True, **options
        )
        cache, chosen = output.past_key_values, output.logits[:, -1].argmax(dim=-1).to(device)
        for owner, token in zip(owners, chosen.tolist(), strict=True):
            if owner in going and token in ends:
                going.discard(owner)
            elif owner in going:
                new[owner].append(token)
        if not going:
            break
        if 2 * len(going) <= len(owners) and hasattr(cache, "batch_select_indices"):
            rows = torch.tensor([row for row, owner in enumerate(owners) if owner in going], device=device)
            cache.batch_select_indices(rows)
            owners = [owner for owner in owners if owner in going]
            chosen, mask, length = chosen[rows], mask[rows], length[rows]
        input_ids, positions, length = chosen[:, None], length, length + 1
        mask = torch.cat([mask, mask.new_ones(len(owners), 1)], dim=1)
    return new


def _left_padded(prompts: Sequence[Sequence[int]], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = [[pad_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a text; some models have several."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    several = configured if isinstance(configured, list) else [configured]
    return {int(token) for token in (tokenizer.eos_token_id, *several) if token is not None}


def _unwrapped(model: Any) -> Any:
    """The model itself where PEFT has wrapped it: the wrapper hands every argument on but does not name them."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
