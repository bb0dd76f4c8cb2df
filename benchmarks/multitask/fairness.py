"""Accuracy against a gap between two groups: scikit-learn's diabetes data, the younger and the older."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import TensorDataset

import mtopt
from mtopt.experiments import Budget

from ._heads import HeadsTask, Outputs, SharedTrunk, perceptron
from .regression import rows_of_splits, standardised


@cache
def grouped_patients(split: str) -> TensorDataset:
    """Ten measurements (n, 10) float32, labels (n,) and groups (n,), bool.

    A label is whether the disease progressed more than in half of the patients, a group whether one is older than half
    of them. Splits have the same shares of all four kinds.
    """
    data = load_diabetes(scaled=False)
    fast = data.target > np.median(data.target)
    age = data.data[:, data.feature_names.index("age")]
    older = age > np.median(age)
    rows = rows_of_splits(len(fast), 2 * fast + older)
    inputs = standardised(data.data, rows["train"])
    return TensorDataset(*(part[rows[split]] for part in (inputs, torch.from_numpy(fast), torch.from_numpy(older))))


def gap(scores: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The difference of the scores' (n,) means between the group and the others."""
    return scores[groups].mean() - scores[~groups].mean()


class FairDiabetes(HeadsTask):
    """The error rate, and demographic parity: the difference of the mean probability between old and young.

    Trained on the cross-entropy and the squared gap of a batch; judged by error rate and absolute gap. The gap of the
    decisions (share of positives) and that of the true positive rates (equal opportunity) are further metrics.
    """

    name = "fair_diabetes"
    title = "Fast progression of diabetes, alike for old and young"
    objectives = (mtopt.Objective("error"), mtopt.Objective("gap"))
    labels = ("error rate", "gap of the mean probability")
    reference_point = (0.5, 0.5)
    learning_rates = (3e-4, 3e-2)
    budget = Budget(steps=600, points=1, trials=12, seeds=5)
    quick_budget = Budget(steps=150, points=1, trials=2, seeds=3)
    batch_size = None
    own_heads = False

    def dataset(self, split: str) -> TensorDataset:
        return grouped_patients(split)

    def network(self) -> SharedTrunk:
        return SharedTrunk(perceptron(10, 16), {"fast": torch.nn.Linear(16, 1)})

    def losses(self, outputs: Outputs, batch: Any) -> dict[str, torch.Tensor]:
        _, fast, older = batch
        logits = outputs["fast"][:, 0]
        return {
            "error": binary_cross_entropy_with_logits(logits, fast.float()),
            "gap": gap(logits.sigmoid(), older) ** 2,
        }

    def errors(self, outputs: Outputs, batch: Any) -> Mapping[str, float]:
        _, fast, older = batch
        logits = outputs["fast"][:, 0]
        positive = (logits > 0).double()
        return {
            "error": float(((logits > 0) != fast).double().mean()),
            "gap": abs(float(gap(logits.sigmoid(), older))),
            "gap of decisions": abs(float(gap(positive, older))),
            "gap of true positive rates": abs(float(gap(positive[fast], older[fast]))),
        }
