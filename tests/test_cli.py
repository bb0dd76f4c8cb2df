"""The command line: what it prints, and what wrong use gets."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

import mtopt
from mtopt.cli import main
from mtopt.experiments._bar import progress_bar
from mtopt.experiments._store import FILE_NAME, ResultStore

ROOT = Path(__file__).parents[1]


def test_list_combiners(capsys):
    assert main(["list", "combiners"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in mtopt.list_combiners())


def test_list_problems(capsys):
    assert main(["list", "problems"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in mtopt.problems.list_problems())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "no.such.suite"], "no module 'no.such.suite' here"),
        (["compare", "tests.experiments.tiny", "--combiners", "pcgard"], "did you mean 'pcgrad'"),
        (["compare", "tests.experiments.tiny", "--seeds", "0"], "seeds must be at least 1"),
        (["report", "nowhere"], "run mtopt compare first"),
    ],
)
def test_wrong_use_is_one_line_and_status_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_the_installed_command_finds_suites_in_the_current_folder(tmp_path):
    command = Path(sys.executable).with_name("mtopt")
    run = subprocess.run(
        [command, "compare", "tests.experiments.tiny", "--quick", "--out", tmp_path / "out", "--jobs", "1"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "mean rank" in run.stdout
    assert "report.html" in run.stdout


@pytest.mark.parametrize("place", ["notes", "notes/results"])
def test_out_that_is_a_file_is_one_line_before_anything_runs(place, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").write_text("mine")
    monkeypatch.setenv("MTOPT_TEST_LOG", str(tmp_path / "log"))
    assert main(["compare", "tests.experiments.tiny", "--quick", "--jobs", "1", "--out", place]) == 2
    captured = capsys.readouterr()
    assert "notes is a file, not a folder; give another --out" in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "log").exists()  # no training was finished
    assert (tmp_path / "notes").read_text() == "mine"


def run_into_a_closed_pipe(*arguments, cwd):
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mtopt.cli", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    return done


def test_a_closed_pipe_ends_without_a_word(tmp_path):
    done = run_into_a_closed_pipe("list", "problems", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_comparison_into_a_closed_pipe_leaves_its_report(tmp_path):
    suite = "tests.experiments.tiny:task"
    arguments = ["compare", suite, "--combiners", "linear", "--quick", "--jobs", "1", "--out", tmp_path]
    done = run_into_a_closed_pipe(*arguments, cwd=ROOT)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr
    assert "parabolas" in (tmp_path / "parabolas-quick-linear" / "report.html").read_text()


def test_progress_is_readable_at_80_columns(capfd, monkeypatch):
    for name, value in {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with progress_bar(show=True) as bar:
        bar.expect(1600)
        bar.advance(1145, "unlearning/mini_unlearning[/x] NGDiff+GeN(automatic) \x1b[31mseed 1000003")
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capfd.readouterr().err).replace("\r", "\n").split("\n")
    last = [line for line in lines if "1145" in line][-1]
    assert len(last) <= 80
    assert re.search(r" 1145/1600 runs 0:00:0\d left [-:\d]+ unlearning/mini_unlearning\[/x\]", last)
    assert "\x1b[31m" not in last


def test_comparisons_in_one_folder_have_a_place_each(capsys, tmp_path, monkeypatch):
    def drawn(comparison, figures):
        (figures / "ranking.svg").write_text("drawn")
        return str(comparison.combiners)

    monkeypatch.setattr("mtopt.experiments.presentation._report.page", drawn)
    common = ["compare", "tests.experiments.tiny:task", "--quick", "--jobs", "1", "--out", str(tmp_path)]
    for arguments in ([*common, "--combiners", "mgda"], ["report", str(tmp_path)]):  # the same comparison: made anew
        assert main(arguments) == 0
        assert "kept" not in capsys.readouterr().out
        assert [path.parent.name for path in tmp_path.rglob("report.html")] == ["parabolas-quick-mgda"]
    assert main([*common, "--combiners", "pcgrad"]) == 0
    assert (
        f"other comparisons here, for mtopt report {tmp_path} --name: parabolas-quick-mgda" in capsys.readouterr().out
    )
    assert main([*common, "--combiners", "mgda", "--name", "mine"]) == 0
    for _ in range(2):  # to and fro: each has its place, and nothing else is made
        pages = {path.parent.name: path.read_text() for path in tmp_path.rglob("report.html")}
        both = "['linear', 'mgda']"
        assert pages == {"parabolas-quick-mgda": both, "parabolas-quick-pcgrad": "['linear', 'pcgrad']", "mine": both}
        assert len(list(tmp_path.rglob("figures/ranking.svg"))) == 3
        assert main(["report", str(tmp_path), "--name", "parabolas-quick-pcgrad"]) == 0
    capsys.readouterr()
    assert main(["report", str(tmp_path), "--name", "parabolas-quik-mgda"]) == 2
    assert "did you mean 'parabolas-quick-mgda'" in capsys.readouterr().err
    assert main([*common, "--combiners", "pcgrad", "--name", "mine"]) == 2
    assert "name 'mine' is that of another comparison" in capsys.readouterr().err
    assert main([*common, "--name", "../mine"]) == 2
    assert "name must be at most 100 letters, digits" in capsys.readouterr().err


FAILING = """
from tests.experiments.tiny import ParabolasTask

class Fails(ParabolasTask):
    def trainer(self, combiner, *, seed, **settings):
        trainer = super().trainer(combiner, seed=seed, **settings)
        trainer.fails = combiner.name == "mgda" and seed == 1
        return trainer

    def values(self, trainer, split, *, seed):
        if trainer.fails:
            raise {error}
        return super().values(trainer, split, seed=seed)

suite = Fails("broken")
"""


@pytest.fixture
def no_page(monkeypatch):
    """The page is not drawn: it is not what these tests are about."""
    monkeypatch.setattr("mtopt.experiments.presentation._report.page", lambda comparison, figures: "page")


def module(folder, monkeypatch, name, code):
    (folder / f"{name}.py").write_text(code)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.mark.parametrize(
    "error",
    ["ValueError('of the task')", "TypeError('of the task')", "FileNotFoundError('of the task')", "{}['a bug']"],
)
@pytest.mark.filterwarnings("ignore:.*the others go on")
def test_an_error_of_a_task_is_told_with_its_traceback_and_status_1(error, capsys, tmp_path, monkeypatch, no_page):
    suite = module(tmp_path, monkeypatch, "failing_suite", FAILING.format(error=error))
    arguments = ["compare", suite, "--seeds", "2", "--trials", "1", "--jobs", "1", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--combiners", "mgda"]) == 1
    captured = capsys.readouterr()
    assert "mean rank" in captured.out  # the other runs are there
    assert len(list((tmp_path / "out").rglob("report.html"))) == 1
    told = captured.err[captured.err.index("mtopt: 1 run of broken/broken failed (mgda seed 1):") :]
    assert "Traceback (most recent call last):" in told
    assert 'failing_suite.py", line 12, in values' in told
    assert "\\n    raise" not in told  # lines are lines
    assert error.partition("(")[0].replace("{}['a bug']", "KeyError: 'a bug'") in told


def test_a_rule_that_does_not_fit_is_a_result_and_status_0(capsys, tmp_path, monkeypatch, no_page):
    monkeypatch.setattr(sys, "path", [*sys.path, str(ROOT)])
    rule = "tests.experiments.test_failures:Refuses"
    arguments = ["compare", "tests.experiments.tiny:task", "--combiners", rule, "--quick", "--jobs", "1"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "losses must be positive" in captured.out
    assert "Traceback" not in captured.err


def test_an_error_of_a_suite_while_it_is_imported_is_told_with_its_traceback(capsys, tmp_path, monkeypatch):
    suite = module(
        tmp_path, monkeypatch, "broken_suite", "def load():\n    raise ValueError('of the suite')\n\nload()\n"
    )
    assert main(["compare", suite, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert 'broken_suite.py", line 2, in load' in told
    assert "ValueError: of the suite" in told


def test_errors_of_a_users_code_are_never_wrong_use(tmp_path, monkeypatch):
    code = FAILING.format(error="None") + "\n\nFails.fingerprint = lambda self: int('of the task')\n"
    suite = module(tmp_path, monkeypatch, "unknowable_suite", code)
    with pytest.raises(ValueError, match="of the task"):
        main(["compare", suite, "--out", str(tmp_path / "out")])


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert mtopt.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", [["report"], ["compare", "tests.experiments.tiny:task", "--jobs", "1", "--out"]])
def test_a_foreign_store_is_one_line_and_status_2(command, tmp_path, capsys):
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        other.execute("CREATE TABLE photos (name TEXT)")
    assert main([*command, str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        f"mtopt: {tmp_path / FILE_NAME} is no result store but a database with the tables ['photos']"
    )
    assert told.count("\n") == 1


def test_a_folder_in_use_is_one_line_and_status_2(tmp_path, capsys):
    command = ["compare", "tests.experiments.tiny:task", "--jobs", "1", "--out", str(tmp_path)]
    with ResultStore(tmp_path).held_alone():
        assert main(command) == 2
    told = capsys.readouterr().err
    assert "is in use by" in told
    assert "give another --out" in told
    assert told.count("\n") == 1


def test_a_damaged_store_is_one_line_and_status_2(tmp_path, capsys):
    (tmp_path / FILE_NAME).write_bytes(b"SQLite format 3\0" + b"\x55" * 4096)
    assert main(["report", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"mtopt: {tmp_path / FILE_NAME} ")
    assert told.count("\n") == 1


def test_a_bad_row_is_one_line_and_status_2(tmp_path, capsys):
    command = ["compare", "tests.experiments.tiny:task", "--jobs", "1", "--quick", "--combiners", "linear", "--out"]
    assert main([*command, str(tmp_path)]) == 0
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as store:
        store.execute("UPDATE runs SET result = '{'")
    capsys.readouterr()
    for again in (["report"], command):
        assert main([*again, str(tmp_path)]) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith(f"mtopt: {tmp_path / FILE_NAME}, run ")
        assert "DELETE FROM runs" in told
