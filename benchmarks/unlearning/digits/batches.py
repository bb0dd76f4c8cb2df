"""Batches that follow from a seed and the number of the epoch alone: for one model, and for many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .settings import CLASSES, Points

_RETAIN, _FORGET, _LABELS = range(3)
"""Streams of random numbers, one for each purpose."""


def retain_order(count: int, seed: int, epoch: int) -> Tensor:
    """All places from 0 to ``count - 1``, in random order."""
    return torch.from_numpy(np.random.default_rng([seed, epoch, _RETAIN]).permutation(count))


def forget_order(count: int, length: int, seed: int, epoch: int) -> Tensor:
    """``length`` places: all of them in random order, again and again."""
    random = np.random.default_rng([seed, epoch, _FORGET])
    rounds = [random.permutation(count) for _ in range(-(-length // count))]
    return torch.from_numpy(np.concatenate(rounds)[:length])


def other_labels(labels: Tensor, seed: int, epoch: int) -> Tensor:
    """For each of the labels (n,) one of the other nine, all with the same chance."""
    shift = np.random.default_rng([seed, epoch, _LABELS]).integers(1, CLASSES, size=len(labels))
    return (labels + torch.from_numpy(shift)) % CLASSES


class PairedBatches:
    """An epoch is the retain set in random order; beside each batch stands one of the forget set, which is gone through
    again and again.

    Each batch is ``{"retain": {"images": ..., "labels": ...}, "forget": {..., "wrong_labels": ...}}``, both sides of
    the same size; the last may be smaller. A wrong label is one of the nine others, drawn anew each time.
    :class:`mtopt.MultiLossTrainer` sets the number of the epoch.

    Args:
        forget, retain: the two parts.
        seed: of the order.
        batch_size: of each side.
    """

    def __init__(self, forget: Points, retain: Points, *, seed: int, batch_size: int = 64) -> None:
        self.forget, self.retain = forget, retain
        self.seed, self.batch_size = seed, batch_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives epoch number ``epoch``, from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.retain.labels) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, dict[str, Tensor]]]:
        stacked = paired_epoch(self.forget, self.retain, [self.seed], self._epoch, batch_size=self.batch_size)
        for retain, forget, wrong in stacked:
            yield {
                "retain": {"images": retain.images[0], "labels": retain.labels[0]},
                "forget": {"images": forget.images[0], "labels": forget.labels[0], "wrong_labels": wrong[0]},
            }


def paired_epoch(
    forget: Points, retain: Points, seeds: Sequence[int], epoch: int, *, batch_size: int = 64
) -> Iterator[tuple[Points, Points, Tensor]]:
    """What :class:`PairedBatches` gives N seeds, stacked: images (N, B, 64) and labels (N, B) to retain, to forget, and
    the wrong labels (N, B) of the latter."""
    count = len(retain.labels)
    kept = torch.stack([retain_order(count, seed, epoch) for seed in seeds])
    lost = torch.stack([forget_order(len(forget.labels), count, seed, epoch) for seed in seeds])
    labels = forget.labels[lost]
    wrong = torch.stack([other_labels(row, seed, epoch) for row, seed in zip(labels, seeds, strict=True)])
    for start in range(0, count, batch_size):
        part = slice(start, start + batch_size)
        yield (
            Points(retain.images[kept[:, part]], retain.labels[kept[:, part]]),
            Points(forget.images[lost[:, part]], labels[:, part]),
            wrong[:, part],
        )


def single_epoch(points: Points, seeds: Sequence[int], epoch: int, *, batch_size: int = 64) -> Iterator[Points]:
    """One pass over the points in an order of its own for each of N seeds: images (N, B, 64) and labels (N, B)."""
    orders = torch.stack([retain_order(len(points.labels), seed, epoch) for seed in seeds])
    for start in range(0, len(points.labels), batch_size):
        places = orders[:, start : start + batch_size]
        yield Points(points.images[places], points.labels[places])
