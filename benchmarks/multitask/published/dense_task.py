"""NYUv2 and Cityscapes as tasks of a comparison, with whatever model one brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

import mtopt
from mtopt.experiments import Budget, Task

from .baselines import CITYSCAPES, NYUV2, Baseline, delta_of
from .dense import DenseFolder, DenseMeter, Pixels, dense_losses, stacked


class DenseTrainer(mtopt.MultiLossTrainer):
    """Adam on MTAN's losses; one is absent from a batch without a pixel that has a value."""

    absent = "nan"

    def losses(self, batch: Any) -> dict[str, torch.Tensor]:
        return dense_losses(self.model(batch["image"]), batch)


class DenseTask(Task):
    """Validation is every tenth training image, which is not trained on; the test is the folder ``val``.

    Args:
        root: the folder, laid out as :class:`DenseFolder` says.
        model: makes a fresh model: from images (B, 3, H, W) to a mapping from each task's name to its output.
    """

    kinds: Mapping[str, str]
    classes: int
    relative_scale: float = 1.0
    baselines: tuple[Baseline, ...]
    batch_size: int

    def __init__(self, root: str | Path, model: Callable[[], torch.nn.Module]) -> None:
        self.root, self.model = str(root), model

    def part(self, split: str) -> Sequence[Pixels]:
        """The images of a split."""
        whole: Any = DenseFolder(self.root, "val" if split == "test" else "train", self.kinds)
        if split == "test":
            return whole  # type: ignore[no-any-return]
        chosen: Any = Subset(whole, [k for k in range(len(whole)) if (k % 10 == 9) == (split == "validation")])
        return chosen  # type: ignore[no-any-return]

    def trainer(
        self, combiner: mtopt.Combiner, *, learning_rate: float, seed: int, point: int, points: int
    ) -> DenseTrainer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + point)
            model = self.model()
        return DenseTrainer(model, torch.optim.Adam(model.parameters(), lr=learning_rate), combiner, seed=seed)

    def data(self, split: str, *, seed: int) -> DataLoader[Pixels]:
        order = torch.Generator().manual_seed(seed)
        dataset: Any = self.part(split)
        return DataLoader(dataset, self.batch_size, shuffle=True, drop_last=True, generator=order, collate_fn=stacked)

    def values(self, trainer: mtopt.MultiLossTrainer, split: str) -> Mapping[str, float]:
        meter = DenseMeter(self.classes, relative_scale=self.relative_scale)
        dataset: Any = self.part(split)
        trainer.model.eval()
        with torch.no_grad():
            for batch in DataLoader(dataset, self.batch_size, collate_fn=stacked):
                meter.add(trainer.model(batch["image"]), batch)
        trainer.model.train()
        found = meter.values()
        return found | {f"Delta_m, {how}": value for how, value in delta_of(found, self.baselines).items()}


class NYUv2(DenseTask):
    """Thirteen classes, depth and surface normals; see docs/multitask.md."""

    name = "nyuv2"
    title = "NYUv2: segmentation, depth, surface normals"
    objectives = (
        mtopt.Objective("mIoU", sense="max"),
        mtopt.Objective("absolute error"),
        mtopt.Objective("mean angle"),
    )
    labels = ("mIoU (%)", "absolute error of the depth", "mean angle (degrees)")
    reference_point = (0.0, 2.0, 90.0)
    learning_rates = (3e-5, 1e-3)
    budget = Budget(steps=79_400, points=1, trials=4, seeds=3)
    quick_budget = Budget(steps=400, points=1, trials=1, seeds=1)
    kinds = {"segmentation": "label", "depth": "depth", "normal": "normal"}  # noqa: RUF012  (a class-level constant)
    classes = 13
    baselines = NYUV2
    batch_size = 2


class Cityscapes(DenseTask):
    """Seven classes and inverse depth; see docs/multitask.md."""

    name = "cityscapes"
    title = "Cityscapes: segmentation and depth"
    objectives = (mtopt.Objective("mIoU", sense="max"), mtopt.Objective("absolute error"))
    labels = ("mIoU (%)", "absolute error of the depth")
    reference_point = (0.0, 0.1)
    learning_rates = (3e-5, 1e-3)
    budget = Budget(steps=74_200, points=1, trials=4, seeds=3)
    quick_budget = Budget(steps=400, points=1, trials=1, seeds=1)
    kinds = {"segmentation": "label_7", "depth": "depth"}  # noqa: RUF012  (a class-level constant)
    classes = 7
    relative_scale = 100.0
    baselines = CITYSCAPES
    batch_size = 8
