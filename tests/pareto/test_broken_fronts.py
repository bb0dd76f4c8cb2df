"""A front's file with something wrong in it: what is read is a whole front, or one error names the file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mtopt
from mtopt.pareto import Front
from mtopt.training import write_checkpoint
from tests.broken import FEW_OR_MANY, changed, damaged, right_or_named

POINTS = torch.tensor([[0.0, 1.0], [0.4, 0.4], [1.0, 0.0]], dtype=torch.float64)
WHOLE = {"preferences": POINTS, "points": POINTS, "names": ["near", "far"], "models": [True, False, True]}
TENSORS = [POINTS.float(), POINTS[0], POINTS[:2], POINTS.int(), torch.zeros(0, 0, dtype=torch.float64), POINTS.mT]


def check_front(folder: Path) -> None:
    with right_or_named(folder, mtopt.CheckpointError):
        front = Front.read(folder)
        assert front.points.is_floating_point()
        assert front.preferences is None or front.preferences.shape == front.points.shape
        assert front.names is None or len(front.names) == front.points.shape[1]
        assert front.models is None or len(front.models) == len(front)
        assert repr(front)
        assert "<table" in front._repr_html_()


@FEW_OR_MANY
def test_content(draws: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    tensors = st.builds(
        lambda name, new: {**WHOLE, name: new}, st.sampled_from(["points", "preferences"]), st.sampled_from(TENSORS)
    )

    @settings(max_examples=draws)
    @given(changed({"front": WHOLE}) | tensors.map(lambda front: {"front": front}))
    @example({"front": {**WHOLE, "names": "ab"}})
    @example({"front": {**WHOLE, "names": [None, None]}})
    @example({"front": {**WHOLE, "models": [1, 0, 2]}})
    @example({"front": {**WHOLE, "points": POINTS.int()}})
    def check(content: Any) -> None:
        write_checkpoint(tmp_path / "front.pt", content)
        check_front(tmp_path)

    check()


@FEW_OR_MANY
def test_bytes(draws: int, tmp_path: Path) -> None:
    path = tmp_path / "front.pt"
    write_checkpoint(path, {"front": WHOLE})

    @settings(max_examples=draws)
    @given(damaged(path.read_bytes()) | st.binary(max_size=80))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        check_front(tmp_path)

    check()
