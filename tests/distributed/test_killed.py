"""A rank that is killed ends the others with an error that says so, and torchrun's restart ends with the same bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.distributed.launched import launch

pytestmark = pytest.mark.long


def test_a_killed_rank_ends_all_and_a_restart_goes_on_bit_for_bit(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_training.py")
    at_once, killed = tmp_path / "at_once", tmp_path / "killed"
    for folder in (at_once, killed):
        folder.mkdir()
    launch(script, 2, str(at_once))
    _, errors = launch(script, 2, str(killed), "7", restarts=1)
    assert (killed / "killed").exists()
    assert "RankError: another of the 2 ranks has ended" in errors
    for rank in range(2):
        assert (killed / f"end-{rank}").read_text() == (at_once / f"end-{rank}").read_text()
