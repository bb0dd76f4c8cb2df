"""A tiny Llama, and rows for it, for tests that need a model and not what it knows."""

import torch

from benchmarks.unlearning.encoding import IGNORED, collate
from benchmarks.unlearning.models import ModelConfig, tiny_llama

VOCABULARY, PAD = 24, 1


class Vocabulary:
    """What a model wants to know of a tokenizer."""

    eos_token_id, pad_token_id = 0, PAD

    def __len__(self):
        return VOCABULARY


def model_of(seed, *, dtype=torch.float32, layers=2):
    """A random Llama whose distributions are far from uniform, so that losses differ from their values there."""
    config = ModelConfig(hidden=16, layers=layers, heads=2, vocabulary=VOCABULARY, positions=32)
    model = tiny_llama(config, Vocabulary(), seed).to(dtype)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(20)
    return model


def rows_of(seed, count, *, answer=4):
    """Encoded rows: prompts of 2 to 4 tokens, answers of 2 to ``answer`` and the end."""
    random = torch.Generator().manual_seed(seed)

    def tokens(low, high):
        length = int(torch.randint(low, high + 1, (), generator=random))
        return torch.randint(2, VOCABULARY, (length,), generator=random).tolist()

    rows = []
    for _ in range(count):
        prompt, reply = tokens(2, 4), [*tokens(2, answer), 0]
        rows.append({"input_ids": prompt + reply, "labels": [IGNORED] * len(prompt) + reply})
    return rows


def batch_of(seed, count=3, **options):
    return collate(rows_of(seed, count, **options), PAD)
