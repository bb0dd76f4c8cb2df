"""What a rule keeps by coordinate of sharded parameters, in its state: as one DTensor a parameter, whole, or cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from mtopt._content import check_mapping, content_of
from mtopt._errors import CheckpointError
from mtopt.autograd import kept_by_coordinate, note_kept
from mtopt.combiners import Combiner
from mtopt.distributed import (
    Processes,
    as_rows_of,
    cut_part,
    cut_rows,
    digest_of,
    is_sharded,
    join_rows,
    make_whole,
    part_rows,
    reshard,
    unwrapped,
)
from mtopt.linalg import join_complex, view_reals, view_shard

KEY = "by_coordinate"
"""Where the state of a rule says what of it is by coordinate."""


def state_of_rule(rule: Combiner, model: torch.nn.Module) -> dict[str, Any]:
    """The rule's state, with what it keeps by coordinate and of which parameters, where that is known."""
    model = unwrapped(model)
    reshard(model)
    names = {id(param): name for name, param in model.named_parameters()}
    kept = kept_by_coordinate(rule, names)
    return {**rule.state_dict(), **({KEY: kept} if kept else {})}


def parted_state(state: Mapping[str, Any], params: Mapping[str, torch.Tensor], processes: Processes) -> Any:
    """The state with lists of DTensors, one per parameter, where it has what is by coordinate of their shards.

    Raises:
        ValueError: it differs between the processes elsewhere.
    """

    def part(value: torch.Tensor, of: Sequence[torch.Tensor], rows: bool) -> Any:
        return part_rows(value, of) if rows else [as_rows_of(of[0], view_reals(value))]

    found = _changed(state, params, part)
    if len(set(processes.gather(digest_of(_without_shards(found))))) > 1:
        raise ValueError(
            f"combiner is {state['rule']}, whose state is of each rank's shard of the parameters, and it is not known "
            "which of it: a rule names such entries in by_coordinate, and PerGroup cannot; take another rule, train "
            "without checkpoints, or leave fully_shard out"
        )
    return found


def sharded_params(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Those of the model in a trainer's state that are sharded, by name."""
    return {name: value for name, value in state.get("model", {}).items() if is_sharded([value])}


def with_parted_rule(state: Mapping[str, Any], processes: Processes) -> dict[str, Any]:
    """A trainer's state with :func:`parted_state` of its rule."""
    rule = state["combiner"]
    return {**state, "combiner": {**rule, "state": parted_state(rule["state"], sharded_params(state), processes)}}


def joined_state(state: Mapping[str, Any], params: Mapping[str, torch.Tensor]) -> Any:
    """The state as a rule has it, of whole parameters or of shards, where :func:`parted_state` has put lists."""

    def join(parts: Any, of: Sequence[torch.Tensor], rows: bool) -> Any:
        if isinstance(parts, torch.Tensor):
            return parts
        return join_rows(parts, of) if rows else join_complex(view_shard(parts[0]), of[0])

    return _changed(state, params, join)


def whole_rule_state(rule: Combiner, model: torch.nn.Module, processes: Processes) -> dict[str, Any]:
    """The rule's state with whole rows, on the first process; all of them call it."""
    state, params = state_of_rule(rule, model), dict(unwrapped(model).named_parameters())
    if not is_sharded(params.values()):
        return state
    whole = make_whole(parted_state(state, params, processes), processes)
    found: dict[str, Any] = joined_state(whole, params) if processes.rank == 0 else rule.state_dict()
    return found


def load_rule_state(rule: Combiner, state: Mapping[str, Any], model: torch.nn.Module) -> None:
    """Have a rule load a state of whole rows, of which it keeps what lies here, or one of shards."""
    model = unwrapped(model)
    reshard(model)
    params = dict(model.named_parameters())
    rule.load_state_dict(cut_state(state, params))
    kept = state.get(KEY, [])
    if all(name in params for entry in kept for name in entry["parameters"]):
        note_kept(rule, kept, params)


def cut_state(state: Mapping[str, Any], params: Mapping[str, torch.Tensor]) -> Any:
    """The state with the rows of the shards that lie here, where ``params`` are sharded.

    Raises:
        CheckpointError: it has rows of other parameters.
    """
    if KEY not in state or not is_sharded(params.values()):
        return state

    def cut(value: Any, of: Sequence[torch.Tensor], rows: bool) -> Any:
        if rows:
            here = sum(view_reals(param).numel() for param in of)
            return value if value.shape[-1] == here else cut_rows(value, of)
        return value if value.shape == view_shard(of[0]).shape else cut_part(value, of[0]).clone()

    with content_of("rule's state by coordinate"):
        return _changed(state, params, cut)


Change = Callable[[Any, Sequence[torch.Tensor], bool], Any]


def _changed(state: Mapping[str, Any], params: Mapping[str, torch.Tensor], change: Change) -> Any:
    """The state with the entries by coordinate changed; the rest is not copied."""
    found: Any = dict(state)
    for entry in state.get(KEY, ()):
        check_mapping(entry, "rule's state by coordinate", ("at", "parameters", "rows"))
        if missing := [name for name in entry["parameters"] if name not in params]:
            raise CheckpointError(f"its rule keeps something of {missing[0]!r}, which the model lacks")
        inner, last = _opened(found, entry["at"])
        inner[last] = change(inner[last], [params[name] for name in entry["parameters"]], entry["rows"])
    return found


def _opened(found: Any, keys: Sequence[Any]) -> tuple[Any, Any]:
    """The dictionary or list with an entry, with a copy of each on the way there put in its place; and its last key."""
    for key in keys[:-1]:
        found[key] = type(found[key])(found[key])
        found = found[key]
    return found, keys[-1]


def _without_shards(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_shards(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_shards(entry) for entry in value if not hasattr(entry, "placements")]
    return value
