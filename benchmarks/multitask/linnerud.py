"""Three outputs that share one number: scikit-learn's linnerud data, whose front is known."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from sklearn.datasets import load_linnerud
from torch.utils.data import TensorDataset

import mtopt
from mtopt.experiments import Budget

from ._heads import RegressionTask, SharedTrunk

TARGETS = ("weight", "waist", "pulse")


@cache
def exercise() -> TensorDataset:
    """Chin-ups, sit-ups and jumps (20, 3), and weight, waist and pulse (20, 3) of twenty men; float64, standardised."""
    data = load_linnerud()
    return TensorDataset(*(torch.from_numpy((part - part.mean(0)) / part.std(0)) for part in (data.data, data.target)))


def correlations() -> npt.NDArray[np.float64]:
    """(3, 3): for inputs made orthonormal, the correlation of each (a row) with each target (a column)."""
    inputs, targets = (part.numpy() for part in exercise().tensors)
    orthonormal, _ = np.linalg.qr(inputs)
    found: npt.NDArray[np.float64] = orthonormal.T @ targets / np.sqrt(len(targets))
    return found


def unit_directions(points: int) -> npt.NDArray[np.float64]:
    """About ``points`` unit vectors (n, 3), evenly over half of the sphere: a Fibonacci lattice."""
    place = np.arange(points)
    height = (place + 0.5) / points
    turn = place * np.pi * (3.0 - np.sqrt(5.0))
    ring = np.sqrt(1.0 - height**2)
    return np.column_stack([ring * np.cos(turn), ring * np.sin(turn), height])


class Linnerud(RegressionTask):
    """Fit all of the data with one shared number: each output is a multiple of one linear form of the three inputs.

    The twenty rows leave nothing to hold out (left out one at a time, ridge regression explains none of the variance),
    so a run is judged by the fit itself, as on a problem of the toy suite, and nothing is said of other men. With
    inputs made orthonormal, the linear form is a unit vector a, and the best squared error of output k is
    ``1 - (a . c_k)²`` of its variance, where c_k are the correlations: the attainable values are known, and so is
    their front.
    """

    name = "linnerud"
    title = "Linnerud: three outputs through one shared number"
    objectives = tuple(mtopt.Objective(name) for name in TARGETS)
    labels = tuple(f"error, {name}" for name in TARGETS)
    reference_point = (1.0, 1.0, 1.0)
    learning_rates = (3e-3, 3e-1)
    budget = Budget(steps=1000, points=6, trials=8, seeds=5)
    quick_budget = Budget(steps=100, points=3, trials=2, seeds=3)
    batch_size = None
    splits_differ = False

    def dataset(self, split: str) -> TensorDataset:
        return exercise()

    def network(self) -> SharedTrunk:
        def linear(inputs: int) -> torch.nn.Linear:
            return torch.nn.Linear(inputs, 1, bias=False, dtype=torch.float64)

        return SharedTrunk(linear(3), {name: linear(1) for name in TARGETS})

    def front(self, points: int = 4000) -> npt.NDArray[np.float64]:
        values = 1.0 - (unit_directions(points) @ correlations()) ** 2
        best: npt.NDArray[np.float64] = values[np.asarray(mtopt.pareto.is_nondominated(values))]
        return best

    def front_hypervolume(self) -> float:
        return float(mtopt.pareto.hypervolume(self.front(20_000), self.reference_point))
