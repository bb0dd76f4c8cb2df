"""Where in its data a run stood when a checkpoint was made."""

from __future__ import annotations

from typing import Any

from mtopt._content import check_mapping, check_whole
from mtopt._errors import CheckpointError


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
