"""Where a comparison writes, who else may, and what ends with it."""

import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

import mtopt
from mtopt.cli import main
from mtopt.experiments import Suite, compare
from mtopt.experiments._store import FILE_NAME
from tests.experiments import tiny

ROOT = Path(__file__).parents[2]


class Wanders(tiny.ParabolasTask):
    """Changes the working directory when it is trained."""

    def __init__(self, folder):
        super().__init__("wanders")
        self._folder = folder

    def values(self, trainer, split, *, seed):
        os.chdir(self._folder)
        return super().values(trainer, split, seed=seed)


def test_out_is_where_it_was_asked_for(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wandering_suite.py").write_text(
        f"import os\nos.chdir({str(tmp_path / 'elsewhere')!r})\n"
        "from tests.experiments.test_folder import Wanders\n"
        f"suite = Wanders({str(tmp_path / 'elsewhere')!r})\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    made = compare("wandering_suite:suite", out="out", combiners=["mgda"], jobs=1, progress=False, quick=True)
    assert made.report() == tmp_path / "out" / made.name / "report.html"
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert all(len(cell.runs) == 1 for cell in made.cells)


def test_a_foreign_store_writes_in_its_folder_alone(tmp_path, capsys):
    (tmp_path / "victim").mkdir()
    inside = tmp_path / "given"
    absolute = Suite(f"{tmp_path}/victim/logo", (tiny.ParabolasTask("logo"),), combiners=("linear",))
    names = ["/../../../victim/logo", "logo\0"]
    relative = Suite("..", tuple(map(tiny.ParabolasTask, names)), combiners=("linear",))
    compare(absolute, relative, out=inside, jobs=1, progress=False, quick=True, trials=1)
    before = {path for path in tmp_path.rglob("*") if inside not in path.parents}
    assert main(["report", str(inside)]) == 0
    assert {path for path in tmp_path.rglob("*") if inside not in path.parents} == before
    figures = list(inside.glob("*/figures/*"))
    assert len(figures) == 2 * (1 + 2 * 3)  # the ranking, a front and curves a task; PNG and SVG
    assert all(path.is_file() for path in figures)


SLOW = """
import os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from mtopt.experiments import Suite, compare
from tests.experiments.tiny import ParabolasTask

class Slow(ParabolasTask):
    def values(self, trainer, split, *, seed):
        if type(trainer.combiner).__name__ == "MGDA":
            (Path(sys.argv[1]) / str(os.getpid())).touch()
            time.sleep(600)
        return super().values(trainer, split, seed=seed)

if __name__ == "__main__":
    compare(Slow(), combiners=["mgda"], out=sys.argv[2], jobs=2, progress=False, seeds=1, trials=7)
"""


@pytest.fixture
def slow(tmp_path):
    """A comparison in a process of its own: its first seven trials are quick, the others take ten minutes."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "seen").mkdir()
    program = [sys.executable, "slow.py", tmp_path / "seen", tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(program, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    yield process
    process.kill()
    process.wait()


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def stored(tmp_path):
    if not (tmp_path / "out" / FILE_NAME).exists():
        return 0
    with closing(sqlite3.connect(tmp_path / "out" / FILE_NAME, timeout=60)) as connection:
        return connection.execute("SELECT COUNT(*) FROM runs").fetchone()[0]


def test_each_result_is_kept_as_it_comes_and_workers_end_with_their_parent(slow, tmp_path):
    def workers():
        return [int(path.name) for path in (tmp_path / "seen").iterdir()]

    wait_until(lambda: len(workers()) == 2)  # both are busy for ten minutes, and what was finished before is stored
    wait_until(lambda: stored(tmp_path) == 7, 10.0)
    with pytest.raises(mtopt.InUseError, match=rf"in use by process {slow.pid} on .*give another --out"):
        compare(tiny.task, out=tmp_path / "out", jobs=1, progress=False)
    slow.kill()
    slow.wait()
    wait_until(lambda: not any(map(is_alive, workers())), 10.0)
    assert stored(tmp_path) == 7
