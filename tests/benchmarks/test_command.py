"""What the suites' own commands share."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks._command import folder

ROOT = Path(__file__).parents[2]

WRITES_MUCH = """
from benchmarks._command import run_command

def main():
    for number in range(100000):
        print("line", number)

run_command(main)
"""


def test_a_folder_need_not_be_there_but_may_not_be_a_file(tmp_path):
    occupied = tmp_path / "notes"
    occupied.write_text("mine")
    assert folder(str(tmp_path)) == str(tmp_path)
    assert folder(str(tmp_path / "a" / "b")) == str(tmp_path / "a" / "b")
    for text in (occupied, occupied / "a" / "b"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{occupied} is a file, not a folder"):
            folder(str(text))


@pytest.mark.parametrize("command", [WRITES_MUCH, WRITES_MUCH.replace("range(100000)", "range(3)")])
def test_a_closed_pipe_ends_a_command_without_a_word(command):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("status", [None, 0, 3])
def test_the_status_is_the_commands(status):
    command = f"from benchmarks._command import run_command\nrun_command(lambda: {status})"
    assert subprocess.run([sys.executable, "-c", command], cwd=ROOT).returncode == (status or 0)
