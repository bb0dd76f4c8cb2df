"""One checkpoint file: what it keeps, and what it says when it is not whole."""

import os
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import mtopt
from mtopt import _checkpoints as files
from mtopt.training import CheckpointFolder, CheckpointWarning, read_checkpoint, write_checkpoint


def content():
    return {
        "numbers": [1, 2.5, True, None, 2**127, float("inf"), 1j, "text", b"bytes", (1, (2,))],
        "torch": [torch.float16, torch.device("cpu"), torch.Size([1, 2])],
        "mappings": [OrderedDict(b=1, a=2), Counter("aab"), {("a", "b"): 1, 3: {"x"}}],
        "tensors": [
            torch.arange(6.0).reshape(2, 3).T,
            torch.tensor(2.0, dtype=torch.bfloat16),
            torch.zeros(0, 3),
            torch.tensor([True]),
            torch.tensor([1 + 2j]),
            nn.Parameter(torch.ones(2)),
        ],
    }


def test_what_goes_in_comes_out(tmp_path):
    path = tmp_path / "c.pt"
    write_checkpoint(path, content())
    found, expected = read_checkpoint(path), content()
    tensors = zip(found.pop("tensors"), expected.pop("tensors"), strict=True)
    assert all(a.dtype == b.dtype and a.equal(b) for a, b in tensors)
    assert found == expected
    assert [type(m) for m in found["mappings"]] == [OrderedDict, Counter, dict]


def test_numpys_numbers_become_pythons(tmp_path):
    write_checkpoint(tmp_path / "c.pt", {"a": np.float64(1.5), np.int64(2): np.bool_(True)})
    found = read_checkpoint(tmp_path / "c.pt")
    assert found == {"a": 1.5, 2: True}
    assert type(found["a"]) is float


def test_versions_of_layers_are_kept(tmp_path):
    model = nn.BatchNorm1d(2)
    write_checkpoint(tmp_path / "c.pt", model.state_dict())
    assert read_checkpoint(tmp_path / "c.pt")._metadata == model.state_dict()._metadata


def test_any_tool_can_open_it(tmp_path):
    write_checkpoint(tmp_path / "c.pt", {"x": torch.ones(3)})
    assert zipfile.ZipFile(tmp_path / "c.pt").testzip() is None
    assert torch.load(tmp_path / "c.pt", weights_only=True)["x"].sum() == 3


class Opaque:
    pass


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"a": [0, Opaque()]}, r"content\['a'\]\[1\] is a Opaque"),
        ({"a": np.ones(2)}, r"content\['a'\] is a ndarray.*torch.from_numpy"),
        ({Opaque: 1}, "a key of content is a type"),
        (lambda: 0, "content is a function"),
    ],
)
def test_what_could_not_be_loaded_is_refused_with_its_place(tmp_path, value, place):
    with pytest.raises(TypeError, match=place):
        write_checkpoint(tmp_path / "c.pt", value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "c.pt"
    write_checkpoint(path, {"x": torch.arange(1000.0), "y": "text"})
    return path


@pytest.mark.parametrize("kept", [0, 1, 3, 100, 0.5, -1, -50, -200])
def test_truncated(path, kept):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(mtopt.CheckpointError, match=r"c\.pt.*(is empty|truncated|no checkpoint of mtopt)"):
        read_checkpoint(path)


def test_every_flipped_bit_is_seen(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = {*rng.integers(0, len(whole), 60).tolist(), *range(len(whole) - 100, len(whole)), 0, 4}
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(mtopt.CheckpointError, match=r"c\.pt"):
            read_checkpoint(path)
    path.write_bytes(whole)
    read_checkpoint(path)


def test_appended_bytes_are_seen(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(mtopt.CheckpointError, match="without mtopt's mark"):
        read_checkpoint(path)


def test_foreign_files(path):
    torch.save({"x": torch.ones(2)}, path)
    with pytest.raises(mtopt.CheckpointError, match="another program wrote it"):
        read_checkpoint(path)
    path.write_text("step,loss\n1,2\n")
    with pytest.raises(mtopt.CheckpointError, match=r"is no checkpoint of mtopt: it starts with b'step'"):
        read_checkpoint(path)


def test_another_format_version(path, monkeypatch):
    monkeypatch.setattr(files, "FORMAT_VERSION", 7)
    write_checkpoint(path, {"x": 1})
    monkeypatch.undo()
    with pytest.raises(mtopt.CheckpointError, match=r"format version 7, and this mtopt reads version 1; use the mtopt"):
        read_checkpoint(path)


def test_an_intact_file_that_is_not_safe_to_load(path, monkeypatch):
    monkeypatch.setattr(files, "plain", lambda value, where: value)
    write_checkpoint(path, {"x": Opaque()})
    with pytest.raises(mtopt.CheckpointError, match="is intact, but this torch"):
        read_checkpoint(path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "none.pt")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(path, monkeypatch):
    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(path, {"x": 2})
    monkeypatch.undo()
    assert read_checkpoint(path)["y"] == "text"
    assert list(path.parent.iterdir()) == [path]


def test_the_name_comes_after_the_bytes_are_on_the_disk(tmp_path, monkeypatch):
    order = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (order.append("fsync"), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    write_checkpoint(tmp_path / "c.pt", {})
    assert order == ["fsync", "replace", "fsync"]  # the file, its name, the directory


# -- the folder -------------------------------------------------------------------------------------------------


def test_the_last_two_are_kept_and_leftovers_cleaned(tmp_path):
    folder = CheckpointFolder(tmp_path / "new" / "run")
    other = folder.directory / "notes.txt"
    other.write_text("mine")
    assert folder.read() is None
    for step in (1, 2, 12):
        folder.write(step, {"step": step})
    assert folder.steps() == [2, 12]
    leftover = folder.path(13).with_name(folder.path(13).name + ".tmp")
    leftover.write_bytes(b"half")
    folder = CheckpointFolder(folder.directory)
    assert leftover.exists()  # who only looks deletes nothing: another run may be writing it
    with folder.held():
        assert not leftover.exists()
    path, found = folder.read()
    assert (path, found) == (folder.path(12), {"step": 12})
    folder.write(20, {})
    assert folder.steps() == [12, 20]
    assert other.read_text() == "mine"


def test_the_folder_goes_back_over_damaged_files(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.write(1, {"step": 1})
    folder.write(2, {"step": 2})
    folder.path(2).write_bytes(folder.path(2).read_bytes()[:-7])
    folder = CheckpointFolder(tmp_path)
    with pytest.warns(CheckpointWarning, match=r"step-0000000002\.pt ends.*Went back to .*step-0000000001\.pt"):
        assert folder.read() == (folder.path(1), {"step": 1})
    # the damaged one makes room, the whole one stays until there are two newer
    folder.write(3, {})
    assert folder.steps() == [1, 3]


def test_no_whole_file_at_all(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.write(step, {})
        folder.path(step).write_bytes(b"")
    with pytest.raises(
        mtopt.CheckpointError, match=r"no checkpoint in .*0002\.pt is empty.*0001\.pt is empty.*resume=False"
    ):
        folder.read()
    assert folder.steps() == [1, 2]
