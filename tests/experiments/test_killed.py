"""Runs whose process the system kills: they alone are lost, run again, and in the end named."""

import os
import signal
import sys
from pathlib import Path

import pytest

from mtopt.cli import main
from mtopt.experiments import compare
from mtopt.experiments._processes import ATTEMPTS, Processes
from tests.experiments import tiny


def end_now(log: str, number: int, times: int) -> int:
    """``number``; the process of 3 kills itself the first ``times`` times."""
    with Path(log).open("a") as file:
        file.write(f"{number}\n")
    if number == 3 and Path(log).read_text().splitlines().count("3") <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * number


@pytest.mark.parametrize("times", [1, ATTEMPTS])
def test_what_is_killed_is_called_again_and_nothing_else(times, tmp_path):
    log = tmp_path / "log"
    processes = Processes(2)
    try:
        found = dict(processes.each([(end_now, n, str(log), n, times) for n in range(6)]))
    finally:
        processes.close()
    calls = log.read_text().splitlines()
    assert {n: calls.count(str(n)) for n in range(6)} == {**dict.fromkeys(range(6), 1), 3: min(times + 1, ATTEMPTS)}
    lost = found.pop(3)
    assert found == {n: 10 * n for n in (0, 1, 2, 4, 5)}
    if times < ATTEMPTS:
        assert lost == 30
    else:
        assert (lost[0], lost[1]["kind"], lost[1]["by"]) == ("failed", "Killed", "code")
        assert "SIGKILL" in lost[1]["error"]


class Killed(tiny.ParabolasTask):
    """Its runs of seed 1 are killed, as the system does when memory is short."""

    def trainer(self, combiner, *, seed, **settings):
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().trainer(combiner, seed=seed, **settings)


def test_a_run_that_is_always_killed_is_named_and_the_others_are_there(tmp_path, monkeypatch, capsys):
    (tmp_path / "killed_suite.py").write_text("from tests.experiments.test_killed import Killed\nsuite = Killed('k')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    monkeypatch.setattr("mtopt.experiments._processes.ATTEMPTS", 2)
    monkeypatch.setattr("mtopt.experiments.presentation._report.page", lambda comparison, figures: "page")
    arguments = ["compare", "killed_suite", "--combiners", "linear", "--seeds", "2", "--trials", "1", "--jobs", "2"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "1 run of k/k failed (linear seed 1):" in told
    assert "Killed: its process ended 2 times" in told
    assert "Traceback" not in told
    mended = compare(
        tiny.ParabolasTask("k"), combiners=["linear"], seeds=2, trials=1, out=tmp_path / "out", jobs=1, progress=False
    )
    assert all(len(cell.runs) == 2 for cell in mended.cells)


def test_a_task_that_cannot_be_sent_is_told_and_not_as_killed():
    processes = Processes(1)
    try:
        ((label, (status, failure)),) = processes.each([(print, "label", Unsendable())])
    finally:
        processes.close()
    assert (label, status) == ("label", "failed")
    assert "cannot be read" in failure["error"] + failure["traceback"]


def _fail():
    raise ValueError("cannot be read")


class Unsendable:
    def __reduce__(self):
        return _fail, ()
