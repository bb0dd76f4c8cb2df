"""Fronts of MultiDigits from one model each, which takes the preference.

    python -m mtopt_suites.multitask.one_model_fronts

A hypernetwork, a mixture of two networks (PaMaL) and one network with low-rank adapters (PaLoRA), with as many steps of
the same batches. Each tries three learning rates on a seed of its own and keeps the one with the largest hypervolume on
the validation split; then come the seeds that count, on the test split.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import mtopt
from mtopt.pareto import hypervolume, uniform_preferences
from mtopt.training import HyperNetwork, PaLoRA, PaMaL, PreferenceTrainer

from .._command import run_command
from ._heads import Outputs, SharedTrunk
from .multidigits import MultiDigits

RATES = (1e-3, 3e-3, 1e-2)
SEEDS = (1, 2, 3, 4, 5)
TUNING_SEED = 0
PREFERENCES = uniform_preferences(2, 11)


class Digits(torch.nn.Module):
    """The suite's network in one call."""

    def __init__(self, inner: SharedTrunk) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> Outputs:
        return self.inner.outputs(self.inner.trunk(images))


class ForAllPreferences(PreferenceTrainer):
    """Both losses of the outputs at the preference that counts now; error rates are what is judged."""

    task = MultiDigits()

    def losses(self, batch: Any) -> Mapping[str, torch.Tensor]:
        return self.task.losses(self.model(batch[0], preference=self.preference), batch)

    def metrics(self, batch: Any) -> Mapping[str, float]:
        errors = self.task.errors(self.model(batch[0], preference=self.preference), batch)
        return {name: errors[name] for name in ("left", "right")}


def _network() -> Digits:
    return Digits(MultiDigits().network())


MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "HyperNetwork": lambda: HyperNetwork(_network(), num_objectives=2),
    "PaMaL": lambda: PaMaL([_network(), _network()]),
    "PaLoRA, rank 4": lambda: PaLoRA(_network(), 2, rank=4),
    "PaLoRA, rank 1": lambda: PaLoRA(_network(), 2, rank=1),
}


@dataclass(frozen=True)
class Found:
    """One training.

    Attributes:
        validation, test: hypervolume at (1, 1) of the error rates at eleven preferences.
        points: how many of these none dominates, on the test split.
        spread: between the ends: how far the left error falls from the last preference to the first one.
        cpu_seconds: of the training.
        parameters: of the model.
    """

    validation: float
    test: float
    points: int
    spread: float
    cpu_seconds: float
    parameters: int


def train(name: str, rate: float, seed: int, steps: int) -> Found:
    """Linear scalarization with a preference drawn in each step, as many steps whatever the model."""
    torch.manual_seed(seed)
    model, task = MODELS[name](), ForAllPreferences.task
    trainer = ForAllPreferences(
        model, torch.optim.Adam(model.parameters(), lr=rate), "linear", num_objectives=2, seed=seed
    )
    began = time.process_time()
    trainer.fit(task.data("train", seed=seed), steps=steps)
    seconds = time.process_time() - began
    validation, test = (trainer.front(PREFERENCES, [task.dataset(s).tensors]).points for s in ("validation", "test"))
    return Found(
        validation=float(hypervolume(validation, task.reference_point)),
        test=float(hypervolume(test, task.reference_point)),
        points=int(mtopt.pareto.is_nondominated(test).sum()),
        spread=float(test[:, 0].max() - test[:, 0].min()),
        cpu_seconds=seconds,
        parameters=sum(param.numel() for param in model.parameters()),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Tune, train, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500, help="of each training (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| model | parameters | rate | hypervolume, mean (least to most) | points | spread | CPU seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in MODELS:
        tried = {rate: train(name, rate, TUNING_SEED, options.steps).validation for rate in RATES}
        rate = max(tried, key=lambda rate: tried[rate])
        found = [train(name, rate, seed, options.steps) for seed in SEEDS]
        tests = [one.test for one in found]
        points, spread = np.mean([one.points for one in found]), np.mean([one.spread for one in found])
        seconds = np.mean([one.cpu_seconds for one in found])
        cells = (
            f"{name} | {found[0].parameters:,} | {rate:g}",
            f"{np.mean(tests):.4f} ({min(tests):.4f} to {max(tests):.4f})",
            f"{points:.1f} | {spread:.3f} | {seconds:.0f}",
        )
        print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    run_command(main)
