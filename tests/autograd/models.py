"""Small models of the kinds that are trained, each with losses that share most of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Losses = dict[str, torch.Tensor]


class Model(nn.Module, ABC):
    """Losses on a fixed batch. Dropout draws the same masks in every call of :meth:`losses`."""

    def losses(self) -> Losses:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return self.compute()

    @abstractmethod
    def compute(self) -> Losses: ...

    def batch(self, *shape: int, seed: int = 0) -> torch.Tensor:
        """The same numbers in every call, in the dtype of the parameters."""
        numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return numbers.to(next(self.parameters()).dtype)


class MLP(Model):
    """Three heads; the third takes a layer of the trunk that the others do not, and only two take the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 5)
        self.heads = nn.ModuleList([nn.Linear(5, 1), nn.Linear(5, 2), nn.Linear(6, 1)])

    def compute(self) -> Losses:
        low = F.dropout(torch.tanh(self.first(self.batch(9, 4))), 0.2)
        high = torch.tanh(self.last(low))
        return {
            "mean": (self.heads[0](high) - 1).square().mean(),
            "class": F.cross_entropy(self.heads[1](high), torch.arange(9) % 2),
            "norm": 1 + self.heads[2](low).abs().mean(),
        }


class CNN(Model):
    """Convolutions with BatchNorm in training mode, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.heads = nn.ModuleList([nn.Linear(16, 3), nn.Linear(16, 1)])

    def compute(self) -> Losses:
        features = F.dropout(self.trunk(self.batch(6, 2, 8, 8)), 0.1)
        return {
            "class": F.cross_entropy(self.heads[0](features), torch.arange(6) % 3),
            "depth": F.huber_loss(self.heads[1](features)[:, 0], self.batch(6, seed=1)),
        }


class LSTM(Model):
    """Two layers with dropout between them; one loss for a step of the sequence, one on its end."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 5, num_layers=2, dropout=0.2, batch_first=True)
        self.heads = nn.ModuleList([nn.Linear(5, 3), nn.Linear(5, 1)])

    def compute(self) -> Losses:
        inputs = self.batch(4, 6, 3)
        states, _ = self.rnn(inputs)
        return {
            "next": (self.heads[0](states[:, :-1]) - inputs[:, 1:]).square().mean(),
            "end": F.softplus(self.heads[1](states[:, -1])).mean(),
        }


class Transformer(Model):
    """Two encoder layers with dropout and LayerNorm, on embedded tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.heads = nn.ModuleList([nn.Linear(8, 11), nn.Linear(8, 2)])

    def compute(self) -> Losses:
        tokens = torch.arange(20).reshape(4, 5) % 11
        states = self.encoder(self.embedding(tokens))
        return {
            "tokens": F.cross_entropy(self.heads[0](states).flatten(0, 1), (tokens.flatten() + 1) % 11),
            "class": F.cross_entropy(self.heads[1](states.mean(1)), torch.arange(4) % 2),
        }


class GPT2(Model):
    """A transformers language model, random and tiny, with tied embeddings: one batch to retain, one to forget."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel  # seconds that other tests need not wait

        config = GPT2Config(vocab_size=23, n_positions=8, n_embd=8, n_layer=2, n_head=2, **options)
        config.bos_token_id = config.eos_token_id = 0
        self.model = GPT2LMHeadModel(config)

    def compute(self) -> Losses:
        tokens = (torch.arange(32).reshape(4, 8) * 7) % 23
        logits = self.model(tokens).logits[:, :-1]
        each = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none").reshape(4, 7)
        return {"retain": each[:2].mean(), "forget": 6 - each[2:].mean()}


MODELS: dict[str, Callable[[], Model]] = {
    "mlp": MLP,
    "cnn": CNN,
    "lstm": LSTM,
    "transformer": Transformer,
    "gpt2": GPT2,
}


def build(name: str, *, dtype: torch.dtype = torch.float64) -> Model:
    """The model of that name, the same in every call, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MODELS[name]().to(dtype).train()
