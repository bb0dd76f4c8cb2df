"""What all commands have in common: options once and in full, answers at once, completion, the doctor, JSON."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mtopt
from mtopt._command_line import completion
from mtopt.cli import _parser, main

ROOT = Path(__file__).parents[1]


def test_help_needs_neither_torch_nor_anything_slow():
    code = "import sys\nfrom mtopt.cli import main\ntry: main(['-h'])\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "COMMAND" in done.stdout
    assert not {"torch", "numpy", "rich", "matplotlib"} & set(done.stderr.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ["compare", "a", "--seeds", "1", "--seeds", "2"],
        ["compare", "a", "--seeds=1", "b", "--seeds=2"],
        ["compare", "a", "--quick", "--quick"],
        ["doctor", "--json", "--json"],
    ],
)
def test_an_option_that_is_repeated_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "is given more than once; give it once" in capsys.readouterr().err


def test_an_option_that_is_cut_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["compare", "a", "--see", "1"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --see" in capsys.readouterr().err


def test_lists_as_json(capsys):
    assert main(["list", "combiners", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [rule["name"] for rule in found] == mtopt.list_combiners()
    assert {rule["name"] for rule in found if rule["needs"] == "norms"} == set(mtopt.list_combiners(needs="norms"))
    assert main(["list", "problems", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [problem["name"] for problem in found] == mtopt.problems.list_problems()


def test_the_doctor_tells_where_it_runs(capsys):
    import torch

    status = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == (1 if found["troubles"] else 0)
    assert found["packages"]["torch"] == torch.__version__
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert found["devices"][0] == "cpu"
    main(["doctor"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("mtopt", "torch", "threads", "devices"))


def test_the_doctor_finds_too_many_threads_and_missing_packages(monkeypatch, capsys):
    from mtopt import _doctor

    monkeypatch.setattr("torch.get_num_threads", lambda: 10_000)
    asked = ["torch>=2.6", "numpy>=99", "pytest>=1; extra == 'a'", "no-such-thing; extra == 'b'"]
    monkeypatch.setattr(_doctor.importlib.metadata, "requires", lambda name: asked)
    monkeypatch.setattr(
        _doctor.importlib.metadata, "metadata", lambda name: type("M", (), {"get_all": lambda self, key: ["a", "b"]})()
    )
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert "numpy>=99 (found" in found["troubles"][0]
    assert "10000 threads" in " ".join(found["troubles"])
    assert found["extras"] == {"a": {"there": True, "missing": []}, "b": {"there": False, "missing": ["no-such-thing"]}}


def completed(line: str, folder: Path) -> set[str]:
    """What bash would offer after ``line``."""
    script = completion(_parser(), "bash", {"RULE": ["all", *mtopt.list_combiners()]})
    words = line.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    code = f'{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _mtopt; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=folder, timeout=60)
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_completion_offers_what_may_follow(tmp_path):
    os.mkdir(tmp_path / "results")
    assert {"compare", "report", "list", "doctor"} <= completed("mtopt ", tmp_path)
    assert completed("mtopt comp", tmp_path) == {"compare", "completion"}
    assert {"--seeds", "--quick"} <= completed("mtopt compare suite --", tmp_path)
    assert completed("mtopt compare suite --combiners mgda nash", tmp_path) == {"nash_mtl"}
    assert completed("mtopt compare suite --out res", tmp_path) == {"results"}
    assert completed("mtopt report ", tmp_path) == {"results"}
    assert "combiners" in completed("mtopt list ", tmp_path)


def test_completion_for_zsh_is_that_for_bash_in_its_own_way(capsys):
    assert main(["completion", "zsh"]) == 0
    zsh = capsys.readouterr().out
    assert main(["completion", "bash"]) == 0
    assert zsh == f"autoload -U +X bashcompinit && bashcompinit\n{capsys.readouterr().out}"
