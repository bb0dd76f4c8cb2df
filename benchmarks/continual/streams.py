"""What comes in sequence: parts of scikit-learn's digits, and the order in which they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from scipy.ndimage import rotate

from ..multitask.multidigits import digits_of_splits

SPLITS = ("train", "validation", "test")
CLASSES = 10
ANGLES = (0, 45, 90, 135, 180)

Part = tuple[torch.Tensor, torch.Tensor]
"""Images (n, 64) in [0, 1] and labels (n,)."""


@dataclass(frozen=True)
class Stream:
    """Parts that are learned one after another.

    Attributes:
        names: of the parts, P of them.
        splits: for ``"train"``, ``"validation"`` and ``"test"``, the P parts.
        outputs: for each part, the classes that it is known to have: a head of its own. None: any of the ten.
    """

    names: tuple[str, ...]
    splits: dict[str, tuple[Part, ...]]
    outputs: tuple[tuple[int, ...], ...] | None = None

    def masks(self) -> torch.Tensor:
        """(P, 10) to add to the logits of a part's examples: 0, and minus infinity for classes that it has not."""
        found = torch.zeros(len(self.names), CLASSES)
        for part, allowed in enumerate(self.outputs or ()):
            found[part] = -torch.inf
            found[part, list(allowed)] = 0.0
        return found


def _flat(split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits_of_splits()[split]
    return images.reshape(len(images), -1), labels


def _parts_of_classes(split: str, classes: Sequence[Sequence[int]]) -> tuple[Part, ...]:
    images, labels = _flat(split)
    kept = [np.isin(labels, list(each)) for each in classes]
    return tuple((torch.from_numpy(images[rows]), torch.from_numpy(labels[rows])) for rows in kept)


@cache
def split_digits() -> Stream:
    """Five parts of two digits each, 0 and 1 first; each is judged between its own two."""
    pairs = [(k, k + 1) for k in range(0, CLASSES, 2)]
    splits = {split: _parts_of_classes(split, pairs) for split in SPLITS}
    return Stream(tuple(f"{a} or {b}" for a, b in pairs), splits, tuple(pairs))


@cache
def single_digits() -> Stream:
    """Ten parts, a digit each, judged among all ten."""
    splits = {split: _parts_of_classes(split, [(k,) for k in range(CLASSES)]) for split in SPLITS}
    return Stream(tuple(str(k) for k in range(CLASSES)), splits)


@cache
def rotated_digits() -> Stream:
    """Five parts, each with all ten digits, turned by 0, 45, 90, 135 and 180 degrees.

    Every training image is in one part alone, so that a part brings digits of its own; the validation and the test
    images are turned by all angles.
    """
    splits = {}
    for split in SPLITS:
        images, labels = digits_of_splits()[split]
        parts = []
        for place, angle in enumerate(ANGLES):
            rows = slice(place, None, len(ANGLES)) if split == "train" else slice(None)
            turned = rotate(images[rows], angle, axes=(2, 1), reshape=False, order=1)
            parts.append((torch.from_numpy(turned.reshape(len(turned), -1)), torch.from_numpy(labels[rows])))
        splits[split] = tuple(parts)
    return Stream(tuple(f"{angle} degrees" for angle in ANGLES), splits)


class Schedule(ABC):
    """Which parts are learned when."""

    @abstractmethod
    def stage(self, step: int, steps: int) -> int:
        """The number of the stage, from 0, that step number ``step`` of ``steps`` is in."""

    @abstractmethod
    def parts(self, stage: int, seed: int) -> tuple[int, ...]:
        """The parts that are there in a stage; they and the seed alone decide."""


@dataclass(frozen=True)
class InTurn(Schedule):
    """Each part once, all for as long.

    Attributes:
        count: how many parts there are.
    """

    count: int

    def stage(self, step: int, steps: int) -> int:
        return min(step * self.count // steps, self.count - 1)

    def parts(self, stage: int, seed: int) -> tuple[int, ...]:
        return (stage,)


@dataclass(frozen=True)
class Recurring(Schedule):
    """SCoLe: a long sequence of short stages, each with a few of the parts, drawn anew each time.

    Lesort et al., "Challenging common assumptions about catastrophic forgetting", 2022 (arXiv 2207.04543).

    Attributes:
        count: how many parts there are.
        together: how many of them a stage has, without repetition, all with the same chance.
        length: steps of a stage.
    """

    count: int
    together: int = 2
    length: int = 5

    def stage(self, step: int, steps: int) -> int:
        return min(step, steps - 1) // self.length

    def parts(self, stage: int, seed: int) -> tuple[int, ...]:
        drawn = np.random.default_rng([seed, stage]).choice(self.count, self.together, replace=False)
        return tuple(sorted(int(part) for part in drawn))


class Places:
    """An epoch is every part in random order, side by side: each batch has ``batch_size`` places in each part.

    Which of them are looked at is the schedule's business. A part that is shorter than the longest is gone through
    again. :class:`mtopt.MultiLossTrainer` sets the number of the epoch.
    """

    def __init__(self, stream: Stream, *, seed: int, batch_size: int) -> None:
        self.sizes = [len(labels) for _, labels in stream.splits["train"]]
        self.seed, self.batch_size = seed, batch_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives epoch number ``epoch``, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return max(self.sizes) // self.batch_size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        random = np.random.default_rng([self.seed, self._epoch])
        length = len(self) * self.batch_size
        orders = []
        for size in self.sizes:
            rounds = [random.permutation(size) for _ in range(-(-length // size))]
            orders.append(torch.from_numpy(np.concatenate(rounds)[:length]))
        for start in range(0, length, self.batch_size):
            yield tuple(order[start : start + self.batch_size] for order in orders)
