"""The folder of one run: what is no checkpoint in it is passed over, and no other run has it meanwhile."""

import os
import subprocess
import sys

import pytest

import mtopt
from mtopt.locks import held_alone
from mtopt.training import Callback, CheckpointFolder, CheckpointWarning, read_checkpoint, write_checkpoint
from tests.training.support import fingerprint, loader, point, two_losses


def test_what_is_named_like_a_checkpoint_and_is_none_is_passed_over(tmp_path):
    """A directory, a link to nothing, a pipe, names with other digits: and of them only the link makes room."""
    folder = CheckpointFolder(tmp_path)
    folder.write(1, {"step": 1})
    folder.path(2).mkdir()
    folder.path(3).symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder.path(4))
    odd = [tmp_path / name for name in ("step-00000000000005.pt", "step-6.pt", "step-٠٠٠٠٠٠٠٠٠٧.pt")]
    for path in odd:
        path.write_bytes(b"mine")
    with pytest.warns(CheckpointWarning) as warned:
        assert folder.read() == (folder.path(1), {"step": 1})
    (message,) = (str(one.message) for one in warned)
    for path in odd:
        assert f"{path} is not a name that mtopt writes; call it step-000000000" in message
    for path, what in zip((2, 3, 4), ("a directory", "a link to nothing", "no file"), strict=True):
        assert f"{folder.path(path)} is {what}; move it away" in message
    assert message.endswith(f"Went back to {folder.path(1)}")
    assert folder.steps() == [1]
    folder.write(8, {})
    assert folder.steps() == [1, 8]
    assert set(tmp_path.iterdir()) == {*map(folder.path, (1, 2, 4, 8)), *odd}


@pytest.mark.parametrize("entry", ["directory", "dangling", "digits"])
def test_a_run_goes_on_from_the_one_before(entry, tmp_path):
    two_losses().fit(loader(), steps=9, checkpoint_dir=tmp_path, checkpoint_every=4)
    newest = CheckpointFolder(tmp_path).path(9)
    if entry == "digits":
        newest.rename(tmp_path / "step-00000000000009.pt")
    else:
        newest.unlink()
    if entry == "directory":
        CheckpointFolder(tmp_path).path(20).mkdir()
    if entry == "dangling":
        newest.symlink_to(tmp_path / "nowhere")
    whole, resumed = two_losses(), two_losses()
    whole.fit(loader(), steps=12)
    with pytest.warns(CheckpointWarning, match=r"Went back to .*step-0000000008\.pt"):
        resumed.fit(loader(), steps=12, checkpoint_dir=tmp_path)
    assert fingerprint(resumed) == fingerprint(whole)


def test_a_checkpoint_that_may_not_be_opened_is_passed_over(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.write(step, {"step": step})

    def refused(path):
        if path == folder.path(2):
            raise PermissionError(13, "Permission denied", str(path))
        return read_checkpoint(path)

    monkeypatch.setattr("mtopt.training.checkpoint._folder.read_checkpoint", refused)  # root may open everything
    with pytest.warns(CheckpointWarning, match=r"0002\.pt cannot be opened: Permission denied.*Went back"):
        assert folder.read() == (folder.path(1), {"step": 1})


def test_of_a_link_the_link_is_deleted(tmp_path):
    victim = tmp_path / "thesis.pt"
    write_checkpoint(victim, {"mine": 1})
    folder = CheckpointFolder(tmp_path / "run")
    for step in (1, 2):
        folder.path(step).symlink_to(victim)
    for step in (2, 3, 4):
        folder.write(step, {})
    assert folder.steps() == [3, 4]
    assert read_checkpoint(victim) == {"mine": 1}


# -- one run at a time ------------------------------------------------------------------------------------------

HOLD = """
import sys
from mtopt.locks import held_alone
with held_alone(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_has_is_refused_until_that_is_dead(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(
                mtopt.InUseError, match=rf"is in use by process {other.pid} on .*checkpoint_dir of its own"
            ):
                point().fit(steps=3, checkpoint_dir=tmp_path)
            assert CheckpointFolder(tmp_path).steps() == []
        finally:
            other.kill()
    point().fit(steps=3, checkpoint_dir=tmp_path)  # a killed run holds nothing
    assert CheckpointFolder(tmp_path).steps() == [3]


def test_a_second_run_in_the_same_process_is_refused(tmp_path):
    class Second(Callback):
        def on_step_end(self, trainer, record):
            (tmp_path / "step-0000000009.pt.tmp").write_bytes(b"being written")
            with pytest.raises(mtopt.InUseError, match="in use by another run of this process"):
                point().fit(steps=3, checkpoint_dir=tmp_path / "." / "")
            assert (tmp_path / "step-0000000009.pt.tmp").exists()

    point(callbacks=[Second()]).fit(steps=2, checkpoint_dir=tmp_path)
    point().fit(steps=3, checkpoint_dir=tmp_path)
    assert not (tmp_path / "step-0000000009.pt.tmp").exists()


def test_a_failed_run_gives_the_folder_free(tmp_path):
    with pytest.raises(ZeroDivisionError), held_alone(tmp_path):
        _ = 1 / 0
    with held_alone(tmp_path), held_alone(tmp_path / "deeper"):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def unsupported(file):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("mtopt.locks._lock", unsupported)
    with pytest.warns(UserWarning, match="cannot be locked"), held_alone(tmp_path):
        pass
