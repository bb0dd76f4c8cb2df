"""Batches whose size may change between any two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import TensorDataset, default_collate

from mtopt._counts import check_count
from mtopt._errors import CheckpointError


class AdaptiveBatches:
    """An indexable data set in batches of ``batch_size``, an attribute that takes effect with the next batch.

    This is the protocol that :class:`AdaptiveBatchSize` asks of data: a ``batch_size`` to set, and, for runs that
    resume bit for bit, ``state_dict`` and ``load_state_dict`` that hold it beside the position. The order of an epoch
    is a permutation made of ``seed`` and the epoch's number alone. A new iterator goes on where the last one was in the
    middle of an epoch, so use an object of its own to evaluate on. It has no length, which would depend on the sizes to
    come.

    Args:
        dataset: has ``len`` and items by number. A ``TensorDataset`` is indexed once a batch; other items are collated.
        batch_size: of the first batches.
        shuffle: default True.
        seed: default 0.
        drop_last: leave out what is left of an epoch when it is less than a batch. Default: False.
        collate: makes a batch of a list of items. Default: torch's ``default_collate``.

    Raises:
        ValueError: no items, or a batch size that is not positive.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        collate: Callable[[list[Any]], Any] = default_collate,
    ) -> None:
        if len(dataset) == 0:
            raise ValueError("dataset has no items")
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle, self.seed, self.drop_last, self.collate = shuffle, seed, drop_last, collate
        self.epoch = 0
        self.position = 0

    @property
    def batch_size(self) -> int:
        """Items in the next batch."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        if check_count("batch_size", value) is None:
            raise ValueError("batch_size must be a positive int, found None")
        self._batch_size = value

    def __iter__(self) -> Iterator[Any]:
        order = self._order()
        while True:
            indices = order[self.position : self.position + self.batch_size]
            if len(indices) == 0 or (self.drop_last and len(indices) < self.batch_size):
                break
            self.position += len(indices)
            yield self._batch(indices)
        self.epoch += 1
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        """The position and the batch size."""
        return {
            "epoch": self.epoch,
            "position": self.position,
            "batch_size": self.batch_size,
            "items": len(self.dataset),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a position in the same data.

        Raises:
            CheckpointError: the data had another number of items.
        """
        if state_dict["items"] != len(self.dataset):
            raise CheckpointError(
                f"the position is one in {state_dict['items']} items, and dataset has {len(self.dataset)}; "
                "give the data it was made with"
            )
        self.epoch, self.position = state_dict["epoch"], state_dict["position"]
        self.batch_size = state_dict["batch_size"]

    def _order(self) -> Sequence[int]:
        if not self.shuffle:
            return range(len(self.dataset))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = torch.randperm(len(self.dataset), generator=generator).tolist()
        return order

    def _batch(self, indices: Sequence[int]) -> Any:
        if isinstance(self.dataset, TensorDataset):
            return self.dataset[list(indices)]
        return self.collate([self.dataset[index] for index in indices])
