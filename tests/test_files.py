"""Files are written whole or not at all; what is wrong with a JSON file is said with its name and line."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mtopt.files import parse_json, read_json, read_json_lines, write_bytes, write_text, written_whole


def full_disk(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def write_half(path: Path) -> None:
    with written_whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("old", [None, "old"])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str | None
) -> None:
    path = tmp_path / "report.html"
    if old is not None:
        path.write_text(old)
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(path, "new")
    monkeypatch.undo()
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert [found.read_text() for found in tmp_path.iterdir()] == ([] if old is None else [old])


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    write_text(path, "old")
    killed = (
        "import os, sys; from mtopt.files import written_whole\n"
        "with written_whole(sys.argv[1]) as f: f.write(b'h'); f.flush(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", killed, path], timeout=60, check=False).returncode == 9
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"


def test_bytes_reach_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order, replace, fsync = [], os.replace, os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (order.append("fsync"), fsync(d)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    assert write_bytes(tmp_path / "deep" / "down" / "file", b"\r\n") == tmp_path / "deep" / "down" / "file"
    assert order == ["fsync", "replace", "fsync"]  # the file, its name, the folder
    assert (tmp_path / "deep" / "down" / "file").read_bytes() == b"\r\n"


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "shared"
    with written_whole(path) as first, written_whole(path) as second:
        first.write(b"a" * 10)
        second.write(b"b" * 5)
    assert path.read_bytes() == b"a" * 10  # the one that was whole last
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_the_users(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_text(tmp_path / "new", "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o604)
    write_text(tmp_path / "new", "y")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o604


def test_a_file_that_is_protected_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "thesis", "mine")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write to everything
    with pytest.raises(PermissionError, match="thesis"):
        write_text(tmp_path / "thesis", "other")
    assert (tmp_path / "thesis").read_text() == "mine"


def test_a_link_is_replaced_and_what_it_points_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "thesis").write_text("mine")
    (tmp_path / "report").symlink_to(tmp_path / "thesis")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("report", "dangling"):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"
        assert not (tmp_path / name).is_symlink()
    assert (tmp_path / "thesis").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_what_is_no_file_is_written_to_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to("/dev/null")
    write_text(tmp_path / "null", "gone")
    assert (tmp_path / "null").is_symlink()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path, "x")


def test_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)
    write_text(path, "x")
    assert path.read_text() == "x"


BAD = {
    "cut short": (b'{"a": 1,\n "b": ', r"line 2, column 7: not JSON"),
    "empty": (b"", r"line 1, column 1: not JSON"),
    "of two": (b"{}\n{}", r"line 2, column 1: not JSON \(Extra data\)"),
    "deep": (b"[" * 200_000, "brackets within brackets"),
    "deep and closed": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "brackets within brackets"),
    "long number": (b'[1,\n"' + b"7" * 10 + b'", ' + b"9" * 6_000 + b"]", "line 2: a number of 6000 digits"),
    "not UTF-8": (b'{\n"a": "\xff"}', "line 2: not UTF-8 at byte 8; save the file as UTF-8"),
    "a list": (b"[]", "an object was expected, found an array"),
    "null": (b"null", "an object was expected, found null"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_named_with_the_line_and_what_to_do(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"record\.json.*{message}") as caught:
        read_json(path, kind=dict, hint="run again")
    assert type(caught.value) is ValueError
    assert str(caught.value).endswith(("run again", "save the file as UTF-8"))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", [name for name in BAD if name not in ("of two", "empty", "cut short")])
def test_a_damaged_line_is_named(tmp_path: Path, name: str) -> None:
    content, _ = BAD[name]
    path = tmp_path / "summary.jsonl"
    path.write_bytes(b'{"step": 0}\n\n' + content.replace(b"\n", b" ") + b"\n")
    lines = read_json_lines(path, kind=dict)
    assert next(lines) == (1, {"step": 0})
    with pytest.raises(ValueError, match=r"summary\.jsonl, line 3.*"):
        next(lines)


def test_half_a_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "summary.jsonl"
    path.write_text('{"step": 0}\n{"step": 1, "util')
    with pytest.raises(ValueError, match=r"summary\.jsonl, line 2, column 13: not JSON"):
        list(read_json_lines(path))


def test_what_is_whole_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(b"\xef\xbb\xbf" + '{"é": [1, NaN]}'.encode())
    assert repr(read_json(path, kind=dict)) == "{'é': [1, nan]}"
    path.write_bytes("\ufeff1\n\n[2]\r\n".encode())
    assert list(read_json_lines(path)) == [(1, 1), (3, [2])]
    assert parse_json('"text"', "a row") == "text"
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")
