"""``kill -9`` in the middle of a real fit, SIGTERM, and the death at each system call of a write."""

import json
import os
import signal
import subprocess
import sys

import pytest

import mtopt
from mtopt.training import CheckpointFolder
from tests.training.killed_run import run

KINDS = {"losses": "famo", "norms": "ngdiff", "gramian": "mgda", "jacobian": "moco", "draws": "modo"}
"""A rule of each kind; FAMO asks for the losses after the step, too."""


def judged(directory, kills, seed):
    """What kills.py says of each rule."""
    command = [sys.executable, "-m", "tests.training.kills", str(directory), str(seed)]
    command += [f"{rule}={count}" for rule, count in kills.items()]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found = {line["rule"]: line for line in map(json.loads, lines)}
    assert set(found) == set(kills)
    return found


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_one_rule_of_each_kind_ends_with_the_same_bits_after_a_kill(tmp_path):
    for rule, kind in ((mtopt.combiners.combiner_class(rule), kind) for kind, rule in KINDS.items()):
        assert rule.draws > 1 if kind == "draws" else rule.needs == kind
    found = judged(tmp_path, dict.fromkeys(KINDS.values(), 2), seed=3)
    assert {rule: line["same"] for rule, line in found.items()} == dict.fromkeys(found, 2)


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_every_rule_ends_with_the_same_bits_after_a_kill(tmp_path):
    """Twenty kills of one rule of each kind, one of each of the others."""
    kills = dict.fromkeys(mtopt.list_combiners(), 1) | dict.fromkeys(KINDS.values(), 20)
    found = judged(tmp_path, kills, seed=20)
    assert {rule: line["same"] for rule, line in found.items()} == kills
    # the kills were where they hurt, too
    assert sum(line["half_written"] for line in found.values()) > 0
    assert sum(line["before_a_checkpoint"] for line in found.values()) > 0


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM to send")
def test_sigterm_writes_a_checkpoint_and_exits_and_another_process_goes_on(tmp_path):
    command = [sys.executable, "-m", "tests.training.killed_run", str(tmp_path), "40", "13"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "holding\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 128 + signal.SIGTERM
        assert child.stdout.read() == "ended\n"  # the callbacks were told
    assert CheckpointFolder(tmp_path / "checkpoints").steps() == [10, 13]  # every ten, and the step it was in

    (tmp_path / "whole").mkdir()
    assert run(tmp_path, 40) == run(tmp_path / "whole", 40)


def test_killed_while_writing(tmp_path, monkeypatch):
    """At each system call of a write in turn, in this process: what is on the disk then is read afterwards."""

    class Killed(BaseException):
        pass

    def dies(*_):
        raise Killed

    folder = CheckpointFolder(tmp_path)
    folder.write(1, {"step": 1})
    for call in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, dies)
            patch.setattr("pathlib.Path.unlink", lambda *_, **__: None)  # the dead clean up nothing
            with pytest.raises(Killed):
                folder.write(2, {"step": 2})
        assert [path.name[:18] for path in tmp_path.glob("*.tmp")] == ["step-0000000002.pt"]
        reopened = CheckpointFolder(tmp_path)
        assert reopened.read() == (reopened.path(1), {"step": 1})
        with reopened.held():
            assert list(tmp_path.glob("*.tmp")) == []
