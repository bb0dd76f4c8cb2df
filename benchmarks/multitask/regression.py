"""Several measurements of one patient from the others: scikit-learn's diabetes data."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch.utils.data import TensorDataset

import mtopt
from mtopt.experiments import Budget

from ._heads import RegressionTask, SharedTrunk, perceptron

TARGETS = ("progression", "blood pressure", "blood sugar")


@cache
def patients() -> tuple[np.ndarray, np.ndarray]:
    """Eight measurements (442, 8) and three targets (442, 3), each as it was measured.

    Targets are the data set's own, the progression of the disease after a year, and two of its ten measurements: the
    blood pressure and s6, the blood sugar. Those two are no inputs.
    """
    data = load_diabetes(scaled=False)
    withheld = [data.feature_names.index(name) for name in ("bp", "s6")]
    inputs = np.delete(data.data, withheld, axis=1)
    return inputs, np.column_stack([data.target, data.data[:, withheld]])


def rows_of_splits(count: int, groups: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The rows of each split, 50 : 20 : 30, with the same share of each of ``groups`` in all; the same on every call.

    Few hundred rows: a larger test split than usual, so that it says something.
    """
    rows = np.arange(count)
    train, rest = train_test_split(rows, test_size=0.5, random_state=0, stratify=groups)
    strata = None if groups is None else groups[rest]
    validation, test = train_test_split(rest, test_size=0.6, random_state=0, stratify=strata)
    return {"train": train, "validation": validation, "test": test}


def standardised(values: np.ndarray, train: np.ndarray) -> torch.Tensor:
    """Columns less their mean and over their standard deviation, both of the training rows; float32."""
    scaled = (values - values[train].mean(0)) / values[train].std(0)
    return torch.from_numpy(scaled.astype(np.float32))


@cache
def diabetes(split: str) -> TensorDataset:
    """Inputs (n, 8) and targets (n, 3), float32, standardised by the training rows."""
    inputs, targets = patients()
    rows = rows_of_splits(len(inputs))
    return TensorDataset(*(standardised(part, rows["train"])[rows[split]] for part in (inputs, targets)))


class Diabetes(RegressionTask):
    """Squared errors, each over the variance of its target in the training rows: about 1 is to say the mean."""

    name = "diabetes"
    title = "Diabetes: three measurements of a patient from eight others"
    objectives = tuple(mtopt.Objective(name) for name in TARGETS)
    labels = tuple(f"error, {name}" for name in TARGETS)
    reference_point = (1.5, 1.5, 1.5)
    learning_rates = (1e-4, 3e-2)
    budget = Budget(steps=600, points=1, trials=12, seeds=5)
    quick_budget = Budget(steps=150, points=1, trials=2, seeds=3)
    batch_size = 64

    def dataset(self, split: str) -> TensorDataset:
        return diabetes(split)

    def network(self) -> SharedTrunk:
        trunk = perceptron(8, 16)
        return SharedTrunk(trunk, {name: torch.nn.Linear(16, 1) for name in TARGETS})
