"""A sharded checkpoint written over another: a SIGKILL before any change of the disk leaves the old or the new."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mtopt.training import CheckpointFolder, CheckpointWarning, write_checkpoint
from tests.distributed.killed_overwrite import trained
from tests.distributed.launched import ROOT

NAME = "step-0000000003.shards"


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL, nor a fork")
def test_a_kill_at_any_change_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.distributed.killed_overwrite", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-9000:]
    old, *killed, whole = map(json.loads, done.stdout.splitlines())
    new = trained(tmp_path / "alone", 0.01, "bare")
    assert whole["before"] is None
    assert whole["left"] == [NAME]
    assert whole["end"] == pytest.approx(new, abs=1e-12)
    assert old != pytest.approx(new, abs=1e-3)
    ends = [found["end"] for found in killed]
    assert all(end in (old, whole["end"]) for end in ends)
    assert ends == sorted(ends, key=lambda end: end != old)  # never the old one again once there was the new one
    assert [NAME] in [found["left at last"] for found in killed]
    # the kills were where they hurt: while neither has its name, and when the old one is deleted in part
    assert [f"{NAME}.partial", f"{NAME}.replaced"] in [found["left"] for found in killed]
    assert sum(found["left"] == [NAME, f"{NAME}.replaced"] for found in killed) > 1


def test_what_stepped_aside_has_its_name_again_in_a_folder_that_is_held(tmp_path: Path) -> None:
    for name in (f"{NAME}.replaced", "step-0000000004.shards", "step-0000000004.shards.replaced"):
        (tmp_path / name).mkdir()
        write_checkpoint(tmp_path / name / "state.pt", {"files": {}, "name": name})
    folder = CheckpointFolder(tmp_path)
    assert folder.steps() == [3, 4]
    for _ in range(2):
        found = folder.read()
        assert found is not None
        assert found[1]["name"] == "step-0000000004.shards"
        with folder.held():
            assert sorted(path.name for path in tmp_path.glob("step-*")) == [NAME, "step-0000000004.shards"]


def test_a_file_of_that_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "step-0000000003.pt.replaced").write_bytes(b"mine")
    folder = CheckpointFolder(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        assert folder.read() is None
    with folder.held():
        assert (tmp_path / "step-0000000003.pt.replaced").read_bytes() == b"mine"
