"""The published data sets' formats, on small files made here; Delta_m against printed tables."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import one_hot

import mtopt
from benchmarks.multitask.published import (
    CITYSCAPES,
    NYUV2,
    QM9,
    QM9_BASELINES,
    CelebA,
    Cityscapes,
    DenseFolder,
    DenseMeter,
    NYUv2,
    delta_of,
    dense_losses,
)
from benchmarks.multitask.published.qm9 import TARGETS

# -- Delta_m ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baselines", [NYUV2, CITYSCAPES, QM9_BASELINES])
def test_the_baselines_themselves_have_a_delta_of_zero(baselines):
    assert delta_of({each.metric: each.value for each in baselines}, baselines) == {"by metric": 0.0, "by task": 0.0}


@pytest.mark.parametrize(
    ("baselines", "row", "printed"),
    [
        (NYUV2, (40.30, 66.07, 0.56, 0.21, 26.67, 21.83, 25.61, 51.78, 64.85), 0.16),  # MoCo
        (CITYSCAPES, (75.41, 93.66, 0.0129, 35.02), 6.82),  # Nash-MTL
        (CITYSCAPES, (75.18, 93.49, 0.0155, 46.77), 22.60),  # equal weights
        (CITYSCAPES, (74.54, 93.29, 0.0145, 32.59), 8.13),  # FAMO
    ],
)
def test_printed_rows_have_the_printed_delta(baselines, row, printed):
    # the metrics are printed rounded: two digits of an error of 0.21 leave a percent of it open
    values = dict(zip((each.metric for each in baselines), row, strict=True))
    found = delta_of(values, baselines)
    assert found["by metric"] == pytest.approx(printed, abs=0.15)
    if baselines is NYUV2:
        assert found["by task"] == pytest.approx(-4.9, abs=0.15)  # as printed elsewhere for the same row


def test_averages_by_task_count_each_task_once():
    values = {each.metric: each.value for each in NYUV2} | {"mIoU": 0.9 * 38.30, "pixel accuracy": 0.9 * 63.76}
    assert delta_of(values, NYUV2) == pytest.approx({"by metric": 2 * 10 / 9, "by task": 10 / 3})
    with pytest.raises(ValueError, match="missing"):
        delta_of({"mIoU": 1.0}, NYUV2)


# -- NYUv2 and Cityscapes ---------------------------------------------------------------------------------------------

SIZE = (6, 8)


def make_dense(root, counts, kinds, classes):
    random = np.random.default_rng(0)
    makers = {
        "image": lambda: random.random((*SIZE, 3)),
        "label": lambda: random.integers(-1, classes, SIZE).astype(float),
        "depth": lambda: random.random((*SIZE, 1)) * (random.random((*SIZE, 1)) > 0.2),
        "normal": lambda: random.normal(size=(*SIZE, 3)) * (random.random((*SIZE, 1)) > 0.2),
    }
    for part, count in counts.items():
        for folder in ("image", *kinds):
            (root / part / folder).mkdir(parents=True)
            for index in range(count):
                np.save(root / part / folder / f"{index}.npy", makers[folder.split("_")[0]]())


class Pixelwise(torch.nn.Module):
    """A linear map of each pixel's colours."""

    def __init__(self, sizes):
        super().__init__()
        self.heads = torch.nn.ModuleDict({name: torch.nn.Conv2d(3, size, 1) for name, size in sizes.items()})

    def forward(self, images):
        return {name: head(images) for name, head in self.heads.items()}


def nyu_model():
    return Pixelwise({"segmentation": 13, "depth": 1, "normal": 3})


def cityscapes_model():
    return Pixelwise({"segmentation": 7, "depth": 1})


@pytest.mark.parametrize(
    ("make", "model", "folders"),
    [(NYUv2, nyu_model, ("label", "depth", "normal")), (Cityscapes, cityscapes_model, ("label_7", "depth"))],
)
def test_a_dense_task_from_files_to_delta(tmp_path, make, model, folders):
    make_dense(tmp_path, {"train": 22, "val": 5}, folders, make.classes)
    task = make(tmp_path, model)
    assert [len(task.part(split)) for split in ("train", "validation", "test")] == [20, 2, 5]
    trainer = task.trainer(mtopt.create_combiner("mgda"), learning_rate=1e-3, seed=0, point=0, points=1)
    trainer.fit(task.data("train", seed=0), steps=3)
    values = task.values(trainer, "test")
    assert set(values) == {each.metric for each in task.baselines} | {"Delta_m, by metric", "Delta_m, by task"}
    assert all(np.isfinite(value) for value in values.values())
    assert isinstance(task.fingerprint(), str)


def test_items_are_the_files_with_channels_first(tmp_path):
    make_dense(tmp_path, {"train": 2}, ("label", "depth", "normal"), 13)
    item = DenseFolder(tmp_path, "train", NYUv2.kinds)[1]
    assert {name: tuple(value.shape) for name, value in item.items()} == {
        "image": (3, *SIZE), "segmentation": SIZE, "depth": (1, *SIZE), "normal": (3, *SIZE)
    }  # fmt: skip
    raw = np.load(tmp_path / "train" / "normal" / "1.npy")
    assert np.allclose(item["normal"].numpy(), raw.transpose(2, 0, 1))
    assert item["segmentation"].dtype == torch.int64
    (tmp_path / "train" / "depth" / "1.npy").unlink()
    with pytest.raises(FileNotFoundError, match="depth"):
        DenseFolder(tmp_path, "train", NYUv2.kinds)


def test_dense_metrics_against_sums_over_single_pixels():
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 4, (2, *SIZE), generator=random)
    said = torch.randint(0, 4, (2, *SIZE), generator=random)
    depth = torch.rand(2, 1, *SIZE, generator=random) * (torch.rand(2, 1, *SIZE, generator=random) > 0.3)
    normal = torch.randn(2, 3, *SIZE, generator=random)
    normal[:, :, 0] = 0.0
    outputs = {
        "segmentation": one_hot(said, 4).movedim(-1, 1).float(),
        "depth": torch.rand(2, 1, *SIZE, generator=random),
        "normal": torch.randn(2, 3, *SIZE, generator=random),
    }
    batch = {"segmentation": labels, "depth": depth, "normal": normal}
    meter = DenseMeter(4)
    for one in range(2):  # in two batches
        meter.add(*({name: value[one : one + 1] for name, value in each.items()} for each in (outputs, batch)))
    values = meter.values()
    pairs = [(int(a), int(b)) for a, b in zip(labels.ravel(), said.ravel(), strict=True) if a >= 0]
    shares = [
        sum(a == b == k for a, b in pairs) / sum(k in (a, b) for a, b in pairs) for k in range(4)
    ]  # fmt: skip
    assert values["mIoU"] == pytest.approx(100 * np.mean(shares))
    assert values["pixel accuracy"] == pytest.approx(100 * np.mean([a == b for a, b in pairs]))
    missed = [
        (abs(p - t), abs(p - t) / t)
        for p, t in zip(outputs["depth"].ravel().tolist(), depth.ravel().tolist(), strict=True)
        if t
    ]
    assert [values["absolute error"], values["relative error"]] == pytest.approx(np.mean(missed, 0).tolist())
    angles = []
    for p, t in zip(
        outputs["normal"].movedim(1, -1).reshape(-1, 3).numpy(),
        normal.movedim(1, -1).reshape(-1, 3).numpy(),
        strict=True,
    ):
        if t.any():
            angles.append(np.degrees(np.arctan2(np.linalg.norm(np.cross(p, t)), p @ t)))
    assert [values["mean angle"], values["median angle"]] == pytest.approx(
        [np.mean(angles), np.median(angles)], rel=1e-5
    )
    assert values["within 30"] == pytest.approx(100 * np.mean(np.array(angles) < 30))
    losses = dense_losses(outputs, batch)
    assert float(losses["depth"]) == pytest.approx(values["absolute error"], rel=1e-5)
    assert float(losses["normal"]) == pytest.approx(np.mean(1 - np.cos(np.radians(angles))), rel=1e-5)


# -- CelebA -----------------------------------------------------------------------------------------------------------


def make_celeba(root, parts="0012"):
    (root / "img_align_celeba").mkdir()
    names = [f"{k:06d}.jpg" for k in range(1, len(parts) + 1)]
    for k, name in enumerate(names):
        Image.new("RGB", (178, 218), (60 * k, 0, 255)).save(root / "img_align_celeba" / name)
    lines = [
        f"{name}  {' '.join('1' if (k + j) % 3 == 0 else '-1' for j in range(40))}" for k, name in enumerate(names)
    ]
    header = " ".join(f"Attribute_{j}" for j in range(40))
    (root / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), header, *lines]) + "\n")
    (root / "list_eval_partition.txt").write_text("".join(f"{n} {p}\n" for n, p in zip(names, parts, strict=True)))


def test_celeba_from_torchvisions_files(tmp_path):
    make_celeba(tmp_path)
    parts = [CelebA(tmp_path, part, size=16) for part in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [2, 1, 1]
    image, attributes = parts[1][0]
    assert image.shape == (3, 16, 16)
    assert torch.allclose(image.mean((1, 2)), torch.tensor([120 / 255, 0.0, 1.0]), atol=0.02)
    assert attributes.tolist() == [float((2 + j) % 3 == 0) for j in range(40)]
    assert parts[0].attributes[39] == "Attribute_39"
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 5\n")
    with pytest.raises(ValueError, match="0, 1 or 2"):
        CelebA(tmp_path, "train")
    with pytest.raises(ValueError, match="part must be"):
        CelebA(tmp_path, "val")


# -- QM9 --------------------------------------------------------------------------------------------------------------

WATER = """gdb_3
 -OEChem-

  3  2  0     0  0  0  0  0  0999 V2000
   -0.0344    0.9775    0.0076 O   0  0  0  0  0  0  0  0  0  0  0  0
    0.0648    0.0206    0.0015 H   0  0  0  0  0  0  0  0  0  0  0  0
    0.8718    1.3008    0.0007 H   0  0  0  0  0  0  0  0  0  0  0  0
  1  2  1  0  0  0  0
  1  3  1  0  0  0  0
M  END
$$$$
"""


def make_qm9(root, copies=3):
    (root / "gdb9.sdf").write_text(WATER * copies)
    with (root / "gdb9.sdf.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["mol_id", "gap", *TARGETS])
        writer.writeheader()
        for k in range(copies):
            writer.writerow({"mol_id": f"gdb_{k + 1}", "gap": 9.0, **dict.fromkeys(TARGETS, 1.0 + k)})


def test_qm9_from_pygs_raw_files(tmp_path):
    make_qm9(tmp_path)
    (tmp_path / "uncharacterized.txt").write_text("a heading\n\n     2   C 1 2 3\n\ncompounds\n")
    data = QM9(tmp_path)
    assert len(data) == 2
    molecule = data[1]
    assert molecule.elements == ("O", "H", "H")
    assert molecule.positions[2].tolist() == pytest.approx([0.8718, 1.3008, 0.0007])
    targets = dict(zip(TARGETS, molecule.targets.tolist(), strict=True))
    assert targets["mu"] == targets["cv"] == 3.0
    assert targets["homo"] == pytest.approx(3 * 27211.386, rel=1e-6)  # a hartree in meV
    assert targets["u0_atom"] == pytest.approx(3 * 43.364, rel=1e-4)  # a kcal/mol in meV
    assert [each.metric for each in QM9_BASELINES] == list(TARGETS)
    (tmp_path / "gdb9.sdf").write_text(WATER)
    with pytest.raises(ValueError, match="1 molecules"):
        QM9(tmp_path)
