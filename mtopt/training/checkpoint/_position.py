"""Where in its data a run stood when a checkpoint was made, on each of its ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtopt._content import check_mapping, check_whole
from mtopt._errors import CheckpointError
from mtopt.distributed import Processes


def of_all_ranks(state: Mapping[str, Any], processes: Processes) -> Mapping[str, Any]:
    """A trainer's state with the positions of all ranks, each with its generators, where there are several."""
    return {**state, "positions": processes.gather(state["position"])} if processes.several else state


def position_here(state: Mapping[str, Any], processes: Processes) -> dict[str, Any] | None:
    """The position at which this rank goes on, marked as ``moved`` where the state is of another number of ranks.

    Raises:
        CheckpointError: something is of another kind.
    """
    saved = check_whole(state.get("ranks", 1), "number of ranks")
    positions = state.get("positions", [state["position"]] * saved)  # what a rank keeps of itself has its own alone
    if not isinstance(positions, list) or not positions or len(positions) != saved:
        raise CheckpointError(f"its positions must be those of {saved} ranks, found {positions!r:.60}")
    for each in positions:
        check_position(each)
    position: dict[str, Any] | None = positions[processes.rank % saved]
    if position is None or saved == processes.size:
        return position
    return {**position, "moved": True}


def check_position(state: Any) -> None:
    """Check the kinds of what a feed's ``state_dict`` gives; None is no position yet.

    Raises:
        CheckpointError: something is of another kind.
    """
    if state is None:
        return
    check_mapping(state, "position", ("has_data", "epoch", "consumed", "ahead", "began", "now", "data"))
    for name in ("epoch", "consumed", "ahead"):
        check_whole(state[name], f"position, {name}")
    if not isinstance(state["has_data"], bool):
        raise CheckpointError(f"its position, has_data must be a flag, found {state['has_data']!r:.60}")
    if state.get("length") is not None:
        check_whole(state["length"], "position, length")
    for name in ("began", "now"):
        if (
            name == "now"
            or state[name] is not None
            or (state["consumed"] and state["data"] is None and state["has_data"])
        ):
            check_mapping(state[name], f"position, {name}", ("global", "data"))
            check_mapping(state[name]["data"], f"position, {name}")
