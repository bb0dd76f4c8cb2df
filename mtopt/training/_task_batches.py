"""Batches drawn by task or by stratum: which task comes next, and how many items of each class a batch has."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mtopt._counts import check_count
from mtopt.autograd import StepRecord
from mtopt.training.callbacks import Callback


class TaskBatches(Callback):
    """One task a batch, ``(name, batch)``: drawn uniformly, or more often where the loss moves.

    ::

        tasks = TaskBatches({"news": news_loader, "code": code_loader}, steps=1000, progress=True)
        trainer = Trainer(model, optimizer, "linear", callbacks=[tasks])  # its losses(batch) gives {name: loss}
        trainer.fit(tasks, epochs=1)

    Uniform draws are how MAMF fine-tunes on many tasks ("multitask fine-tuning with uniformly sampled tasks", arXiv
    2203.04904). With ``progress`` a task is drawn in proportion to its absolute learning progress, ``|mean loss of its
    last window - mean of the window before|``, but uniformly with probability ``explore``: ALP-GMM (Portelas et al.,
    CoRL 2019) for tasks that can be counted, where no mixture of Gaussians is to be fitted. For that it is a callback
    that reads the losses of the steps, named as the tasks; until every task has two windows draws are uniform.

    Args:
        loaders: by the task's name; one that ends is begun again.
        steps: batches in an epoch.
        progress: draw by learning progress. Default: False.
        window: losses in each of the two windows. Default: 10.
        explore: share of uniform draws, in [0, 1]. Default: 0.2.
        seed: default 0.

    The state holds the draws and the losses, and not where the loaders are.
    """

    def __init__(
        self,
        loaders: Mapping[str, Iterable[Any]],
        *,
        steps: int,
        progress: bool = False,
        window: int = 10,
        explore: float = 0.2,
        seed: int = 0,
    ) -> None:
        if not loaders:
            raise ValueError("loaders is empty; give a loader for each task")
        if check_count("steps", steps) is None or check_count("window", window) is None:
            raise ValueError(f"steps and window must be positive ints, found {steps!r} and {window!r}")
        if not 0 <= explore <= 1:
            raise ValueError(f"explore must be in [0, 1], found {explore}")
        self.loaders, self.steps, self.progress = dict(loaders), steps, progress
        self.window, self.explore, self.seed = window, explore, seed
        self.losses: dict[str, list[float]] = {name: [] for name in loaders}
        self._random = np.random.default_rng(seed)
        self._running: dict[str, Iterator[Any]] = {}
        self.position = 0  # batches of this epoch; a new iterator goes on there

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        names = list(self.loaders)
        while self.position < self.steps:
            self.position += 1
            name = names[int(self._random.choice(len(names), p=self.probabilities()))]
            yield name, self._next(name)
        self.position = 0

    def probabilities(self) -> list[float]:
        """With which each task is drawn next."""
        uniform = np.full(len(self.losses), 1 / len(self.losses))
        if not self.progress or any(len(seen) < 2 * self.window for seen in self.losses.values()):
            return uniform.tolist()
        moved = np.array([abs(float(np.diff(np.reshape(s, (2, -1)).mean(1))[0])) for s in self.losses.values()])
        if not moved.any():
            return uniform.tolist()
        found: list[float] = (self.explore * uniform + (1 - self.explore) * moved / moved.sum()).tolist()
        return found

    def on_step_end(self, trainer: Any, record: StepRecord) -> None:
        for name, loss in record.losses.items():
            if name in self.losses and np.isfinite(loss):
                self.losses[name] = [*self.losses[name], float(loss)][-2 * self.window :]

    def state_dict(self) -> dict[str, Any]:
        losses = {name: list(seen) for name, seen in self.losses.items()}
        return {"losses": losses, "random": self._random.bit_generator.state, "position": self.position}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self.losses = {name: list(seen) for name, seen in state_dict["losses"].items()}
        self._random.bit_generator.state = state_dict["random"]
        self.position = state_dict["position"]

    def _next(self, name: str) -> Any:
        for fresh in (False, True):
            if fresh or name not in self._running:
                self._running[name] = iter(self.loaders[name])
            for batch in self._running[name]:
                return batch
        raise ValueError(f"the loader of task {name!r} holds no batch")


class StratifiedBatches(torch.utils.data.Sampler[list[int]]):
    """Batches with the same share of each stratum as the data: a ``batch_sampler`` for torch's ``DataLoader``.

    A stratum of N_c of N items has ``batch_size N_c / N`` in each batch, rounded so that over the batches of an epoch
    its items come once each: the k-th of n batches has the items ``floor(k N_c / n)`` to ``floor((k + 1) N_c / n)`` of
    the stratum's own order. Neyman's proportional allocation, under which a mean gradient has only the variance within
    strata.

    Args:
        labels: the stratum of each item.
        batch_size: at most so many items, give or take one a stratum.
        seed: of the order within the strata, another one in each epoch. Default: 0.
    """

    def __init__(self, labels: Sequence[int] | torch.Tensor, batch_size: int, *, seed: int = 0) -> None:
        if check_count("batch_size", batch_size) is None or len(labels) == 0:
            raise ValueError(f"batch_size must be a positive int and labels not empty, found {batch_size!r}")
        strata = np.asarray(labels)
        self.strata = [np.flatnonzero(strata == label) for label in np.unique(strata)]
        self.batch_size, self.seed, self.epoch = batch_size, seed, 0
        self.items = len(strata)

    @property
    def shares(self) -> list[float]:
        """N_c / N, in the order of the sorted labels: the ``preference`` of a rule on the strata's losses."""
        return [len(members) / self.items for members in self.strata]

    def __len__(self) -> int:
        return -(-self.items // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        self.epoch += 1
        orders = [random.permutation(members) for members in self.strata]
        ends = [[k * len(order) // len(self) for k in range(len(self) + 1)] for order in orders]
        for k in range(len(self)):
            parts = [order[end[k] : end[k + 1]] for order, end in zip(orders, ends, strict=True)]
            yield list(itertools.chain.from_iterable(part.tolist() for part in parts))
