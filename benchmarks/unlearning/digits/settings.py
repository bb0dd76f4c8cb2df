"""What is to be forgotten of scikit-learn's digits: a class, or a confusion of two classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

CLASSES = 10


class Points(NamedTuple):
    """Images (n, 64) in [0, 1], float32, and labels (n,)."""

    images: Tensor
    labels: Tensor

    def where(self, chosen: Tensor) -> Points:
        """Those where the mask (n,) is true."""
        return Points(self.images[chosen], self.labels[chosen])


class Setting(ABC):
    """A training set in two parts, and unseen images to judge a model by."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short, for files and tables."""

    @property
    @abstractmethod
    def title(self) -> str:
        """A few words, for reports."""

    @property
    @abstractmethod
    def forget(self) -> Points:
        """The part of the training set that is to be forgotten, with the labels it was trained on."""

    @property
    @abstractmethod
    def retain(self) -> Points:
        """The rest of the training set."""

    @abstractmethod
    def heldout(self, split: str) -> Points:
        """Of ``"validation"`` or ``"test"``, what the model should still be able to do."""

    @abstractmethod
    def like_forget(self, split: str) -> Points:
        """Of ``"validation"`` or ``"test"``, images from the distribution of the forget set, labelled as it is."""

    @property
    def train(self) -> Points:
        """All that the original model is trained on."""
        return Points(*(torch.cat(parts) for parts in zip(self.retain, self.forget, strict=True)))


@dataclass(frozen=True)
class ClassForgetting(Setting):
    """All training images of one class are to be forgotten. The other classes are held out for judging."""

    forgotten: int = 3

    def __post_init__(self) -> None:
        _check_class("forgotten", self.forgotten)

    @property
    def name(self) -> str:
        return f"class-{self.forgotten}"

    @property
    def title(self) -> str:
        return f"Digits: forget the class {self.forgotten}"

    @property
    def forget(self) -> Points:
        return self.like_forget("train")

    @property
    def retain(self) -> Points:
        return self.heldout("train")

    def heldout(self, split: str) -> Points:
        points = points_of(split)
        return points.where(points.labels != self.forgotten)

    def like_forget(self, split: str) -> Points:
        points = points_of(split)
        return points.where(points.labels == self.forgotten)


@dataclass(frozen=True)
class Confusion(Setting):
    """Interclass confusion: in a part of the training images of two classes the labels were swapped, and these are to
    be forgotten, so that the two can be told apart again.

    Goel et al., "Towards adversarial evaluations for inexact machine unlearning" (arXiv 2201.06640); used by SCRUB.

    Args:
        first, second: the classes.
        share: of each class' training images, in (0, 1). At 0.5, the original model cannot know which is which.
        seed: of which ones.
    """

    first: int = 3
    second: int = 8
    share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_class("first", self.first)
        _check_class("second", self.second)
        if self.first == self.second:
            raise ValueError(f"first and second must be two classes, found {self.first} twice")
        if not 0 < self.share < 1:
            raise ValueError(f"share must be in (0, 1), found {self.share}: some of each class must stay as it is")

    @property
    def name(self) -> str:
        return f"confusion-{self.first}-{self.second}"

    @property
    def title(self) -> str:
        return f"Digits: forget swapped labels of {self.first} and {self.second}"

    @property
    def forget(self) -> Points:
        return self._swapped(points_of("train").where(self._mislabelled))

    @property
    def retain(self) -> Points:
        return points_of("train").where(~self._mislabelled)

    def heldout(self, split: str) -> Points:
        return points_of(split)

    def like_forget(self, split: str) -> Points:
        points = points_of(split)
        return self._swapped(points.where((points.labels == self.first) | (points.labels == self.second)))

    @property
    def _mislabelled(self) -> Tensor:
        labels = points_of("train").labels
        random = np.random.default_rng(self.seed)
        mask = torch.zeros(len(labels), dtype=torch.bool)
        for label in sorted((self.first, self.second)):
            places = (labels == label).nonzero().flatten()
            mask[places[random.permutation(len(places))[: round(self.share * len(places))]]] = True
        return mask

    def _swapped(self, points: Points) -> Points:
        return Points(points.images, self.first + self.second - points.labels)


@cache
def points_of(split: str) -> Points:
    """The 1,078 training, 359 validation or 360 test images, with their true labels."""
    from ...multitask.multidigits import digits_of_splits

    images, labels = digits_of_splits()[split]
    return Points(torch.from_numpy(images).flatten(1), torch.from_numpy(labels))


def _check_class(argument: str, label: int) -> None:
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < CLASSES:
        raise ValueError(f"{argument} must be a digit from 0 to 9, found {label!r}")
