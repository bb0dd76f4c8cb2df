"""Many small classifiers trained at once: KLoM compares distributions over models, so it takes a hundred of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from .. import _cache
from .batches import single_epoch
from .settings import CLASSES, Points, Setting


@dataclass(frozen=True)
class Training:
    """How the original and the retrained models are made: a network 64 - width - 10, and Adam.

    100 models of the default take 10 to 20 seconds of one core.
    """

    width: int = 128
    epochs: int = 40
    learning_rate: float = 3e-3
    batch_size: int = 64


def network(seed: int, width: int = 128) -> torch.nn.Sequential:
    """A classifier (n, 64) -> (n, 10) with one hidden layer, its weights drawn as torch does, from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, CLASSES))


class Ensemble(torch.nn.Module):
    """N classifiers with stacked weights, called as one: images (n, 64), or (N, n, 64), to logits (N, n, 10).

    The members share nothing, so that the gradient of a sum of their losses is the gradient of each; an optimizer that
    works element by element (Adam, SGD) trains each as if it were alone.
    """

    def __init__(self, members: Sequence[torch.nn.Sequential]) -> None:
        super().__init__()
        if not members:
            raise ValueError("members is empty: an ensemble has at least one")
        stacks = zip(*(member.parameters() for member in members), strict=True)
        self.tensors = torch.nn.ParameterList([torch.stack([tensor.detach() for tensor in stack]) for stack in stacks])

    def __len__(self) -> int:
        return len(self.tensors[0])

    def forward(self, images: Tensor) -> Tensor:
        first, first_bias, second, second_bias = self.tensors
        images = images if images.ndim == 3 else images.expand(len(self), *images.shape)
        hidden = torch.baddbmm(first_bias[:, None], images, first.mT).relu()
        return torch.baddbmm(second_bias[:, None], hidden, second.mT)

    def member(self, place: int) -> torch.nn.Sequential:
        """One of them, as a network of its own, with its parameters in the same order."""
        alone = network(0, self.tensors[0].shape[1])
        with torch.no_grad():
            for parameter, stack in zip(alone.parameters(), self.tensors, strict=True):
                parameter.copy_(stack[place])
        return alone

    def __getitem__(self, places: slice) -> Ensemble:
        """Some of them, as an ensemble of their own."""
        return Ensemble([self.member(place) for place in range(len(self))[places]])


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, n) of each image under each model, for logits (N, n, 10) and labels (N, n) or (n,)."""
    labels = labels.expand(logits.shape[:2])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)


def descend(
    ensemble: Ensemble,
    losses: Iterable[Callable[[], Tensor]],
    *,
    learning_rate: float,
    masks: Sequence[Tensor] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """One step of Adam for each of the losses, which give (N,), one for each member.

    Args:
        ensemble: changed in place.
        losses: called in turn.
        learning_rate: of Adam.
        masks: one for each parameter, in the order of ``ensemble.parameters()``; what is zero there stays as it is.
        optimizer: to go on with, instead of a new one.
    """
    optimizer = optimizer or adam(ensemble, learning_rate)
    for loss in losses:
        optimizer.zero_grad()
        torch.autograd.backward(loss().sum())
        if masks is not None:
            for parameter, mask in zip(ensemble.parameters(), masks, strict=True):
                assert parameter.grad is not None
                parameter.grad *= mask
        optimizer.step()


def adam(ensemble: Ensemble, learning_rate: float) -> torch.optim.Adam:
    """Adam for all members at once."""
    if not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"learning_rate must be positive, found {learning_rate!r}")
    return torch.optim.Adam(ensemble.parameters(), lr=learning_rate, fused=True)


def train(points: Points, seeds: Sequence[int], training: Training) -> Ensemble:
    """One model for each seed, which decides its first weights and the order of its batches."""
    ensemble = Ensemble([network(seed, training.width) for seed in seeds])
    batches = (
        batch
        for epoch in range(training.epochs)
        for batch in single_epoch(points, seeds, epoch, batch_size=training.batch_size)
    )
    losses = (lambda b=batch: cross_entropies(ensemble(b.images), b.labels).mean(1) for batch in batches)
    descend(ensemble, losses, learning_rate=training.learning_rate)
    return ensemble


def reference(
    setting: Setting,
    kind: Literal["original", "retrained"],
    seeds: Sequence[int],
    *,
    training: Training | None = None,
    cache_dir: Path | None = None,
) -> Ensemble:
    """The models before unlearning, trained on everything, or the ideal after it, trained on the retain set alone.

    Args:
        setting: what is forgotten.
        kind: which of the two.
        seeds: one model each, integers from 0.
        training: default: :class:`Training`'s own.
        cache_dir: where trained ensembles are kept, by the hash of all that determines them. Default: the suite's
            folder, ``~/.cache/mtopt/unlearning/digits``.
    """
    training = training or Training()
    recipe = {
        "setting": repr(setting),
        "kind": kind,
        "seeds": list(seeds),
        "training": asdict(training),
        "version": 1,
    }
    folder = (cache_dir or _cache.default_folder() / "digits") / _cache.key_of(recipe)
    ensemble = Ensemble([network(seed, training.width) for seed in seeds])
    if _cache.read(folder, ensemble) is None:
        ensemble = train(setting.train if kind == "original" else setting.retain, seeds, training)
        _cache.write(folder, ensemble, recipe)
    return ensemble
