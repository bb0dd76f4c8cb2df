"""Files of published data with something wrong in them: what is read is right, or one error names the file."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.multitask.published import QM9, CelebA, DenseFolder, NYUv2
from tests.benchmarks.test_published import SIZE, make_celeba, make_dense, make_qm9
from tests.broken import FEW_OR_MANY, damaged, right_or_named


@FEW_OR_MANY
@pytest.mark.parametrize("name", ["gdb9.sdf", "gdb9.sdf.csv", "uncharacterized.txt"])
def test_molecules(name: str, draws: int, tmp_path: Path) -> None:
    make_qm9(tmp_path)
    (tmp_path / "uncharacterized.txt").write_text("a heading\n\n     2   C 1 2 3\n")
    whole = (tmp_path / name).read_bytes()

    @settings(max_examples=draws)
    @given(damaged(whole))
    @example(b"")
    @example("²\n".encode())
    @example(b"\xff")
    @example(whole.replace(b"  3  2", b"999  2"))
    @example(whole.replace(b"gdb_1,9.0,1.0", b"gdb_1,9.0,nan"))
    @example(b"mu," + whole)
    @example(whole.replace(b"-0.0344", b"x"))
    @example(whole.replace(b"-0.0344    0.9775", b"-0.0344"))
    @example(whole.replace(b",1.0", b"", 1))
    @example(whole.replace(b"gdb_1", b"\0"))
    @example(whole.replace(b"gdb_1", b'"' + b"9" * 200_000))
    def check(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with right_or_named(tmp_path, ValueError):
            for molecule in QM9(tmp_path):
                assert molecule.positions.shape == (len(molecule.elements), 3)
                assert molecule.targets.isfinite().all()

    check()


@FEW_OR_MANY
@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_eval_partition.txt", "img_align_celeba/000001.jpg"])
def test_faces(name: str, draws: int, tmp_path: Path) -> None:
    make_celeba(tmp_path)
    whole = (tmp_path / name).read_bytes()

    @settings(max_examples=draws)
    @given(damaged(whole))
    @example(b"")
    @example(b"4")
    @example(b"4\n\n")
    @example(b"\xff\n")
    @example(whole[: len(whole) // 2])
    def check(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with right_or_named(tmp_path, ValueError, OSError):
            faces = CelebA(tmp_path, "train", size=4)
            for index in range(len(faces)):
                image, attributes = faces[index]
                assert image.shape == (3, 4, 4)
                assert set(attributes.tolist()) <= {0.0, 1.0}

    check()


WRONG_ARRAYS = [
    np.zeros((*SIZE, 4)),
    np.zeros(SIZE[0]),
    np.zeros((SIZE[0] + 1, SIZE[1], 3)),
    np.full(SIZE, np.nan),
    np.full(SIZE, "a"),
    np.zeros(SIZE, dtype=complex),
]


@FEW_OR_MANY
@pytest.mark.parametrize("name", ["image", "label", "depth", "normal"])
def test_arrays(name: str, draws: int, tmp_path: Path) -> None:
    make_dense(tmp_path, {"train": 1}, ("label", "depth", "normal"), 13)
    path = tmp_path / "train" / name / "0.npy"
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        with right_or_named(tmp_path, ValueError):
            item = DenseFolder(tmp_path, "train", NYUv2.kinds)[0]
            assert {value.shape[-2:] for value in item.values()} == {SIZE}
            assert item["segmentation"].dtype == torch.int64

    for array in WRONG_ARRAYS:
        with tempfile.TemporaryFile() as file:
            np.save(file, array)
            file.seek(0)
            check(file.read())
    header = whole[:128]
    claims = [header.replace(b"(6, 8", text) for text in (b"(9**9, 8", b"(-6, 8", b"(6000000000, 8", b"(6, 'a'")]
    for content in (b"", b"PK\x03\x04", b"\x80\x04.", *(claim + whole[128:] for claim in claims)):
        check(content)
    check(header.replace(b"<f4", b"<f8") + whole[128:])  # other numbers, some of which no float32 holds
    # most of what matters is the header's
    settings(max_examples=draws)(given(damaged(header).map(lambda start: start + whole[128:]) | st.binary())(check))()
