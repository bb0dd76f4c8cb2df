"""Batches, epoch after epoch, with a position that can be saved and found again."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Final

from mtopt._content import content_of
from mtopt._errors import CheckpointError
from mtopt.combiners import Combiner
from mtopt.training._random import (
    State,
    generator_state,
    generators_in,
    global_state,
    set_generator_state,
    set_global_state,
)
from mtopt.training.checkpoint import CheckpointWarning, check_position

END: Final = object()
"""What :meth:`Feed.draw` gives when the epoch is over."""


class Feed:
    """Draws batches from data that is iterated anew for each epoch.

    The position is the states of all generators when the epoch's iterator was made and the number of batches taken
    from it: that iterator is made again from these states, the batches are passed over, and the generators are set
    to where they were. Data with ``state_dict`` and ``load_state_dict`` (a stateful loader) says where it is itself.

    Args:
        data: an iterable; None gives the batch None for ever.
        epoch: how many epochs are behind.
    """

    def __init__(self, data: Iterable[Any] | None, epoch: int = 0) -> None:
        if data is not None and not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
            raise TypeError(
                f"data must be an iterable of batches, such as a DataLoader or a list, found {type(data).__name__}"
            )
        self.data = data
        self.epoch = epoch
        self.consumed = 0
        self._iterator: Iterator[Any] | None = None
        self._ahead: list[Any] = []  # batches that were drawn to see whether there are any, and are not used yet
        self._began: State | None = None
        self._saved_ahead: Any = None
        self._generators = generators_in(data)

    @property
    def length(self) -> int | None:
        """Batches in an epoch, where the data says it."""
        try:
            return len(self.data)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError):  # a loader over a stream has __len__ and no length
            return None

    def draw(self) -> Any:
        """The next batch of the epoch, or END."""
        if self.data is None:
            return None
        if self._iterator is None:
            self._begin()
        assert self._iterator is not None
        batch = self._ahead.pop(0) if self._ahead else next(self._iterator, END)
        if batch is not END:
            self.consumed += 1
        return batch

    def take(self, count: int, *, least: int, rule: Combiner) -> list[Any]:
        """The next ``count`` batches of the epoch. Fewer at its end, but not fewer than ``least``: rather none.

        ``rule``: takes ``least`` of them; it is named in the error.

        Raises:
            ValueError: the whole epoch has fewer than ``least``, but some.
        """
        batches: list[Any] = []
        while len(batches) < count and (batch := self.draw()) is not END:
            batches.append(batch)
        if len(batches) >= least:
            return batches
        if batches and self.consumed == len(batches):
            raise ValueError(
                f"data gave {len(batches)} batches in epoch {self.epoch + 1}, and a step of {rule!r} takes {least}; "
                "give smaller batches or more of them, or another rule"
            )
        return []

    def at_end(self, least: int = 1) -> bool:
        """Whether the epoch has fewer than ``least`` batches left; asks the data only when its length says so."""
        length = self.length
        if self._iterator is None or length is None or not self.consumed <= length < self.consumed + least:
            return False
        if self._stateful:
            self._saved_ahead = self.data.state_dict()  # type: ignore[union-attr]
        while len(self._ahead) < least:
            batch = next(self._iterator, END)
            if batch is END:
                return True
            self._ahead.append(batch)  # the length was too low
        return False

    def close_epoch(self) -> None:
        """Count the epoch.

        Raises:
            ValueError: it had no batch.
        """
        if self.consumed == 0:
            raise ValueError(
                f"data gave no batch in epoch {self.epoch + 1}: it is empty, or an iterator that is used up; give "
                "data that is not empty and starts anew with each iter(data), such as a DataLoader or a list"
            )
        self.epoch += 1
        self.consumed = 0
        self._iterator = None
        self._ahead = []
        self._began = None

    def state_dict(self) -> State:
        """The position, and where all generators are now."""
        state: State = {
            "has_data": self.data is not None,
            "epoch": self.epoch,
            "consumed": self.consumed,
            "ahead": len(self._ahead),
            "length": self.length,
            "began": self._began,
            "now": self._states(),
            "data": None,
        }
        if self._stateful:
            state["data"] = self._saved_ahead if self._ahead else self.data.state_dict()  # type: ignore[union-attr]
        return state

    def consumed_at(self, state: State) -> int:
        """How many batches of the epoch are behind at a position: of one of other ranks the same share of it."""
        before, consumed = state.get("length"), int(state["consumed"])
        if "moved" not in state or None in (before, self.length) or not before:
            return consumed
        return consumed * (self.length or 0) // int(before)

    def load_state_dict(self, state: State) -> None:
        """Go to a position: the next :meth:`draw` gives the batch that came next when it was saved.

        Raises:
            CheckpointError: the data is not what it was, as far as can be seen.
        """
        check_position(state)
        self._check(state)
        self.epoch = state["epoch"]
        consumed, ahead = self.consumed_at(state), 0 if "moved" in state else state["ahead"]
        if state["data"] is not None:
            with content_of("data's own state"):
                self.data.load_state_dict(state["data"])  # type: ignore[union-attr]
            if state["consumed"]:
                self._begin()
            self.consumed = state["consumed"]
        elif state["consumed"]:
            self._set(state["began"])
            self._begin()
            self._pass_over(consumed)
            self._pass_over(ahead, self._ahead)
            self.consumed = consumed
        self._set(state["now"])
        before = state.get("length")
        if None not in (before, self.length) and before != self.length:
            warnings.warn(
                f"the checkpoint was made with data of {before!r:.20} batches per epoch, and training goes on with "
                f"{self.length}, after {'the same share' if 'moved' in state else 'as many batches'} of epoch "
                f"{self.epoch + 1} as before: {self.consumed}",
                CheckpointWarning,
                stacklevel=3,
            )

    @property
    def _stateful(self) -> bool:
        return hasattr(self.data, "state_dict") and hasattr(self.data, "load_state_dict")

    def _begin(self) -> None:
        samplers = (getattr(self.data, name, None) for name in ("sampler", "batch_sampler"))
        for part in (self.data, *samplers):
            set_epoch = getattr(part, "set_epoch", None)  # a DistributedSampler shuffles by the epoch's number
            if set_epoch is not None:
                set_epoch(self.epoch)
        self._began = self._states()
        self._iterator = iter(self.data)  # type: ignore[arg-type]

    def _pass_over(self, count: int, kept: list[Any] | None = None) -> None:
        assert self._iterator is not None
        for passed in range(count):
            if (batch := next(self._iterator, END)) is END:
                raise CheckpointError(
                    f"the checkpoint was made after {count} batches of epoch {self.epoch + 1}, and data has only "
                    f"{passed} of them now; give the data it was made with"
                )
            if kept is not None:
                kept.append(batch)

    def _states(self) -> State:
        return {
            "global": global_state(),
            "data": {where: generator_state(generator) for where, generator in self._generators.items()},
        }

    def _set(self, states: State) -> None:
        with content_of("generators"):
            set_global_state(states["global"])
            for where, generator in self._generators.items():
                set_generator_state(generator, states["data"][where])

    def _check(self, state: State) -> None:
        if state["has_data"] != (self.data is not None):
            raise CheckpointError(
                f"the checkpoint was made {'with' if state['has_data'] else 'without'} data, and fit was given "
                f"{'none' if self.data is None else 'some'}; call fit as before"
            )
        if (state["data"] is not None) != self._stateful:
            raise CheckpointError(
                f"the checkpoint was made with data that {'has' if state['data'] is not None else 'lacks'} state_dict "
                f"and load_state_dict, unlike the {type(self.data).__name__} given; give the data it was made with"
            )
        if "moved" in state and state["data"] is not None and state["consumed"]:
            raise CheckpointError(
                "the checkpoint was made by another number of ranks in the middle of an epoch, with data that keeps "
                "the place of each rank itself; go on with as many ranks, or from the end of an epoch"
            )
        saved, present = sorted(state["now"]["data"]), sorted(self._generators)
        if saved != present:
            raise CheckpointError(
                f"the checkpoint was made with data that holds the generators {saved}, found {present}; "
                "give the data it was made with"
            )
