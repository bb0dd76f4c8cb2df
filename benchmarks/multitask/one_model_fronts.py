"""Fronts from one model each, which takes the preference.

    python -m mtopt_suites.multitask.one_model_fronts --on digits
    python -m mtopt_suites.multitask.one_model_fronts --on wordings

A hypernetwork, a mixture of two networks (PaMaL) and one network with low-rank adapters (PaLoRA), on MultiDigits or on
a tiny Llama that is to answer in two wordings, with as many steps of the same batches. Each tries some learning rates
on a seed of its own and keeps the one with the largest hypervolume on the validation split; then come the seeds that
count, on the test split.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import mtopt
from mtopt.pareto import hypervolume, uniform_preferences
from mtopt.training import HyperNetwork, PaLoRA, PaMaL, PreferenceTrainer

from .._command import run_command
from . import two_wordings
from ._heads import Outputs, SharedTrunk
from .multidigits import MultiDigits

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


@dataclass(frozen=True)
class Subject:
    """What fronts are measured on.

    Attributes:
        models: by name, each drawn from the global generator.
        trainer: of two losses.
        training_data: the batches of a seed.
        split: the whole of one, as one batch.
        reference: of the hypervolume.
        rates: to choose from.
        seeds: that count.
        steps: of each training.
    """

    models: Mapping[str, Callable[[], torch.nn.Module]]
    trainer: type[PreferenceTrainer]
    training_data: Callable[[int], Iterable[Any]]
    split: Callable[[str], tuple[torch.Tensor, ...]]
    reference: tuple[float, float]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int


SUBJECTS = {
    "digits": Subject(
        models={
            "HyperNetwork": lambda: HyperNetwork(_network(), num_objectives=2),
            "PaMaL": lambda: PaMaL([_network(), _network()]),
            "PaLoRA, rank 4": lambda: PaLoRA(_network(), 2, rank=4),
            "PaLoRA, rank 1": lambda: PaLoRA(_network(), 2, rank=1),
        },
        trainer=ForAllPreferences,
        training_data=lambda seed: MultiDigits().data("train", seed=seed),
        split=lambda split: MultiDigits().dataset(split).tensors,
        reference=(1.0, 1.0),
        rates=(1e-3, 3e-3, 1e-2),
        seeds=(1, 2, 3, 4, 5),
        steps=1500,
    ),
    "wordings": Subject(
        models=two_wordings.MODELS,
        trainer=two_wordings.ForAllWordings,
        training_data=two_wordings.training_data,
        split=lambda split: two_wordings.known().splits[split].tensors,
        reference=(5.0, 5.0),
        rates=(3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
        seeds=(1, 2, 3, 4, 5),
        steps=300,
    ),
}


@dataclass(frozen=True)
class Found:
    """One training.

    Attributes:
        hypervolume: of the points at eleven preferences.
        points: how many of these none dominates.
        spread: between the ends: how far the first objective falls from the last preference to the first one.
        cpu_seconds: of the training.
        parameters: of the model, and those of them that are trained.
    """

    hypervolume: float
    points: int
    spread: float
    cpu_seconds: float
    parameters: tuple[int, int]


def train(subject: Subject, name: str, rate: float, seed: int, steps: int, split: str) -> Found:
    """Linear scalarization with a preference drawn in each step, then judged on a split."""
    torch.manual_seed(seed)
    model = subject.models[name]()
    trained = [param for param in model.parameters() if param.requires_grad]
    trainer = subject.trainer(model, torch.optim.Adam(trained, lr=rate), "linear", num_objectives=2, seed=seed)
    data = subject.training_data(seed)
    began = time.process_time()
    trainer.fit(data, steps=steps)
    seconds = time.process_time() - began
    front = trainer.front(PREFERENCES, [subject.split(split)]).points
    return Found(
        hypervolume=float(hypervolume(front, subject.reference)),
        points=int(mtopt.pareto.is_nondominated(front).sum()),
        spread=float(front[:, 0].max() - front[:, 0].min()),
        cpu_seconds=seconds,
        parameters=(sum(p.numel() for p in model.parameters()), sum(p.numel() for p in trained)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Tune, train, print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--on", choices=SUBJECTS, default="digits", help="what to train (default: %(default)s)")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="some of them alone (default: all)")
    parser.add_argument("--steps", type=int, help="of each training (default: 1500 on digits, 300 on wordings)")
    options = parser.parse_args(arguments)
    subject = SUBJECTS[options.on]
    steps = subject.steps if options.steps is None else options.steps
    names = list(subject.models) if options.models is None else options.models
    if unknown := [name for name in names if name not in subject.models]:
        parser.error(f"--models has {unknown}; on {options.on} there are {list(subject.models)}")
    torch.set_num_threads(1)
    print("| model | parameters | trained | rate | hypervolume, mean (least to most) | points | spread | CPU seconds |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name in names:
        tried = {
            rate: train(subject, name, rate, TUNING_SEED, steps, "validation").hypervolume for rate in subject.rates
        }
        rate = max(tried, key=lambda rate: tried[rate])
        found = [train(subject, name, rate, seed, steps, "test") for seed in subject.seeds]
        volumes = [one.hypervolume for one in found]
        points, spread = np.mean([one.points for one in found]), np.mean([one.spread for one in found])
        seconds = np.mean([one.cpu_seconds for one in found])
        whole, trained = found[0].parameters
        cells = (
            f"{name} | {whole:,} | {trained:,} | {rate:g}",
            f"{np.mean(volumes):.4f} ({min(volumes):.4f} to {max(volumes):.4f})",
            f"{points:.1f} | {spread:.3f} | {seconds:.0f}",
        )
        print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    run_command(main)
