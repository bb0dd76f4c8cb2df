"""What a rule carries from step to step, saved and loaded."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch

from mtopt._content import check_alike, check_mapping, check_whole, content_of
from mtopt._errors import CheckpointError
from mtopt.combiners._hyperparameters import HasHyperparameters

Keys = tuple[str | int, ...]
"""The way through a state to an entry."""


class Owners:
    """The parameters whose coordinates a rule keeps something of, in this process: a copy of a rule has none.

    Attributes:
        coordinates: of its tracked rows, one parameter after the other.
        visited: of the values that it has been at.
    """

    def __init__(self) -> None:
        self.coordinates: Sequence[weakref.ref[torch.Tensor]] = ()
        self.visited: Sequence[weakref.ref[torch.Tensor]] = ()

    def note_coordinates(self, params: Iterable[torch.Tensor]) -> None:
        """The rule was asked on the coordinates of ``params``, in this order."""
        self.coordinates = [*map(weakref.ref, params)]

    def note_visited(self, params: Iterable[torch.Tensor]) -> None:
        """``rule.visited`` holds values of ``params``, in this order."""
        self.visited = [*map(weakref.ref, params)]

    def __reduce__(self) -> tuple[type[Owners], tuple[()]]:
        return Owners, ()


class SavesState(HasHyperparameters):
    """``state`` names the attributes that the next step depends on; the rules for groups of parameters have theirs."""

    state: ClassVar[tuple[str, ...]] = ()
    by_coordinate: ClassVar[tuple[str, ...]] = ()
    _as_long: ClassVar[tuple[str, ...]] = ()  # entries of as many objectives
    _late_state: ClassVar[Mapping[str, Any]] = {}  # entries that are None at first: their dimensions, or "list"

    def for_group(self, key: str) -> Self:
        """The rule for the parameters that only some of the losses reach: same hyper-parameters, its own state."""
        groups: dict[str, Self] = self.__dict__.setdefault("_groups", {})
        if key not in groups:
            groups[key] = self.fresh()
        return groups[key]

    @property
    def owners(self) -> Owners:
        """Whose coordinates it keeps something of, noted by the engine's steps."""
        found: Owners = self.__dict__.setdefault("_owners", Owners())
        return found

    @property
    def rules_of_groups(self) -> Mapping[str, Self]:
        """The rules :meth:`for_group` has made so far."""
        found: Mapping[str, Self] = self.__dict__.get("_groups", {})
        return found

    def entries_by_coordinate(self) -> Iterator[Keys]:
        """Where ``state_dict`` has tensors (..., D), an entry for each coordinate; rules of groups tell their own."""
        for name in self.by_coordinate:
            value = getattr(self, name)
            if isinstance(value, torch.Tensor):
                yield "state", name
            elif value is not None:
                yield from (("state", name, number) for number in range(len(value)))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, as tensors and plain values, loadable into a fresh rule."""
        state = {name: _copy_of(getattr(self, name)) for name in self.state}
        return {
            "rule": type(self).__name__,
            "state": state,
            "groups": {key: rule.state_dict() for key, rule in self.rules_of_groups.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state of a rule of the same class.

        Raises:
            CheckpointError: the state is another rule's, truncated, or has other entries than this one's.
        """
        check_mapping(state_dict, f"{type(self).__name__}'s state")
        missing = [key for key in ("rule", "state", "groups") if key not in state_dict]
        if missing:
            raise CheckpointError(
                f"state_dict lacks {', '.join(map(repr, missing))}: it is truncated, or not what {type(self).__name__}."
                "state_dict() returned"
            )
        if state_dict["rule"] != type(self).__name__:
            raise CheckpointError(
                f"state_dict belongs to rule {state_dict['rule']!r}, not to {type(self).__name__}; "
                "create the rule that was saved"
            )
        state = check_mapping(state_dict["state"], f"{type(self).__name__}'s state")
        if set(state) != set(self.state):
            raise CheckpointError(
                f"state_dict of {type(self).__name__} must hold {sorted(self.state)}, found {sorted(state)}; "
                "it was written by another version of the rule"
            )
        fresh = self.fresh()
        for name, value in state.items():
            current = getattr(self, name)
            if isinstance(current, torch.Generator):
                with content_of(f"{type(self).__name__}'s {name}"):
                    current.set_state(value.cpu())
            else:
                check_alike(getattr(fresh, name), value, f"{type(self).__name__}'s {name}")
                self._check_late(name, value)
                counts = value if name in self._as_long and isinstance(value, list) else [value] * (name == "_step")
                for number in counts:
                    if isinstance(number, int | None) or name == "_step":
                        check_whole(number, f"{type(self).__name__}'s {name}")
                setattr(self, name, _copy_of(value))
        lengths = {name: len(value) for name in self._as_long if (value := state[name]) is not None}
        if len(set(lengths.values())) > 1:
            raise CheckpointError(f"{type(self).__name__}'s state must be of one number of objectives, found {lengths}")
        self.__dict__["_groups"] = {}
        for key, group in check_mapping(state_dict["groups"], f"{type(self).__name__}'s groups").items():
            self.for_group(key).load_state_dict(group)

    def _check_late(self, name: str, value: Any) -> None:
        """Check what a new rule has as None, and that is a tensor, or a list of tensors, once it has made a step."""
        expected = self._late_state.get(name)
        if expected is None or value is None:
            return
        tensors = value if expected == "list" and isinstance(value, list) else [value]
        floats = all(isinstance(t, torch.Tensor) and t.is_floating_point() for t in tensors)
        if not floats or not all(expected in ("list", t.ndim) for t in tensors):
            found = f"of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"{value!r:.60}"
            what = "a list of tensors" if expected == "list" else f"a tensor of {expected} dimensions"
            raise CheckpointError(f"{type(self).__name__}'s {name} must be {what}, found {found}")


def _copy_of(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, torch.Tensor):
        return value.clone()
    if type(value) is dict:  # deepcopy takes several operations a tensor
        return {name: _copy_of(entry) for name, entry in value.items()}
    return copy.deepcopy(value)
