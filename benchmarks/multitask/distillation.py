"""A small student of ten digits: their labels, against what a teacher says that knows eight of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from torch.utils.data import TensorDataset

import mtopt
from mtopt.experiments import Budget

from ._heads import HeadsTask, Outputs, SharedTrunk, error_rate, perceptron
from .multidigits import digits_of_splits

TEMPERATURE = 2.0
TEACHER_STEPS = 300
KNOWN = 8
"""The teacher has seen the digits below this one alone."""


def flat(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 64) and labels (n,) of MultiDigits' splits."""
    images, labels = digits_of_splits()[split]
    return torch.from_numpy(images).flatten(1), torch.from_numpy(labels)


@cache
def teacher() -> torch.nn.Module:
    """A network of 64-256-10, trained on the digits 0 to 7 of the training split; the same on every call."""
    images, labels = flat("train")
    images, labels = images[labels < KNOWN], labels[labels < KNOWN]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():  # it may be first asked for in an evaluation
        torch.manual_seed(0)
        model = torch.nn.Sequential(perceptron(64, 256), torch.nn.Linear(256, 10))
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
        for _ in range(TEACHER_STEPS):
            places = torch.randint(len(images), (128,))
            optimizer.zero_grad()
            cross_entropy(model(images[places]), labels[places]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


@cache
def taught(split: str) -> TensorDataset:
    """Images (n, 64), labels (n,) and the teacher's logits (n, 10)."""
    images, labels = flat(split)
    with torch.no_grad():
        return TensorDataset(images, labels, teacher()(images))


def divergence(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """``T² KL(softmax(wanted / T) || softmax(logits / T))``, the mean over examples, in nats (Hinton et al., 2015)."""
    log_p, log_q = log_softmax(wanted / TEMPERATURE, 1), log_softmax(logits / TEMPERATURE, 1)
    return TEMPERATURE**2 * kl_div(log_q, log_p, reduction="batchmean", log_target=True)


class Distillation(HeadsTask):
    """The error rate on all ten digits, and the divergence from a teacher that takes 8 and 9 for something else.

    On the other digits the teacher helps, on these two no student can please both.
    """

    name = "distillation"
    title = "Distillation: the labels, against a teacher that does not know 8 and 9"
    objectives = (mtopt.Objective("error"), mtopt.Objective("divergence"))
    labels = ("error rate", "divergence from the teacher (nats)")
    reference_point = (0.5, 3.0)
    learning_rates = (1e-3, 3e-2)
    budget = Budget(steps=1500, points=1, trials=12, seeds=5)
    quick_budget = Budget(steps=150, points=1, trials=2, seeds=3)
    own_heads = False

    def dataset(self, split: str) -> TensorDataset:
        return taught(split)

    def network(self) -> SharedTrunk:
        return SharedTrunk(perceptron(64, 16), {"digit": torch.nn.Linear(16, 10)})

    def losses(self, outputs: Outputs, batch: Any) -> dict[str, torch.Tensor]:
        _, labels, wanted = batch
        logits = outputs["digit"]
        return {"error": cross_entropy(logits, labels), "divergence": divergence(logits, wanted)}

    def errors(self, outputs: Outputs, batch: Any) -> Mapping[str, float]:
        _, labels, wanted = batch
        logits = outputs["digit"]
        known = labels < KNOWN
        return {
            "error": error_rate(logits, labels),
            "divergence": float(divergence(logits, wanted)),
            "error, digits the teacher knows": error_rate(logits[known], labels[known]),
            "agreement with the teacher": float((logits.argmax(1) == wanted.argmax(1)).double().mean()),
        }
