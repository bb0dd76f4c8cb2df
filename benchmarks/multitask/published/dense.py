"""Images with a value for each pixel, in folders of numpy files as MTAN and LibMTL lay them out; losses and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.utils.data import Dataset

Pixels = dict[str, torch.Tensor]


class DenseFolder(Dataset[Pixels]):
    """``ROOT/train`` or ``ROOT/val``, with a folder for each kind and files ``0.npy``, ``1.npy``, ... in each.

    ``image`` is (H, W, 3), labels (H, W) with -1 for none, ``depth`` (H, W, 1) with 0 for none, ``normal`` (H, W, 3)
    with a zero vector for none. An item has them as tensors, channels first, labels as int64 (H, W).

    Args:
        root: the folder.
        part: ``"train"`` or ``"val"``.
        kinds: by name of the task, the folder: ``{"segmentation": "label", "depth": "depth", "normal": "normal"}``
            for NYUv2, ``"label_7"`` and no normals for Cityscapes.

    Raises:
        FileNotFoundError: a folder is not there, or has other files than ``image``.
        ValueError: when an item is taken, one of its files is no array of that form.
    """

    def __init__(self, root: str | Path, part: str, kinds: Mapping[str, str]) -> None:
        self.folder = Path(root) / part
        self.kinds = {"image": "image", **kinds}
        counts = {name: len(list((self.folder / name).glob("*.npy"))) for name in self.kinds.values()}
        self.count = counts["image"]
        wrong = {name: count for name, count in counts.items() if count != self.count or not count}
        if wrong:
            raise FileNotFoundError(
                f"{self.folder} must hold the same files 0.npy, 1.npy, ... in each of {list(counts)}, found so many: "
                f"{counts}"
            )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Pixels:
        if not 0 <= index < self.count:
            raise IndexError(index)
        found: Pixels = {}
        size: tuple[int, ...] = ()
        for name, folder in self.kinds.items():
            path = self.folder / folder / f"{index}.npy"
            values = _read_array(path, _CHANNELS.get(name))
            size = size or values.shape[:2]
            if values.shape[:2] != size:
                raise ValueError(f"{path} is {values.shape[:2]}, and the image {size}; all of an item have one size")
            if name == "segmentation":
                found[name] = torch.from_numpy(_cast(path, values, np.int64))
            else:
                found[name] = torch.from_numpy(np.moveaxis(_cast(path, values, np.float32), -1, 0).copy())
        return found


def _cast(path: Path, values: npt.NDArray[np.generic], dtype: type[np.generic]) -> npt.NDArray[np.generic]:
    """The values in another dtype, which must hold them."""
    with np.errstate(all="ignore"):
        found = values.astype(dtype)
    held = np.isfinite(values) if dtype is np.int64 else np.isfinite(found) | ~np.isfinite(values)
    if not held.all():
        raise ValueError(f"{path} has numbers that {np.dtype(dtype)} cannot hold, such as {values[~held][0]}")
    return found


_CHANNELS = {"image": 3, "segmentation": 0, "depth": 1, "normal": 3}
"""The last axis of each kind; 0 for none."""


def _read_array(path: Path, channels: int | None) -> npt.NDArray[np.generic]:
    try:
        # mapped, so that a header that promises more than there is costs nothing
        values = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, OverflowError, EOFError, SyntaxError, TokenError) as error:
        raise ValueError(f"{path} is no array of numpy: {error}; restore it from its source") from error
    shape = values.shape
    fits = len(shape) == (2 if channels == 0 else 3) and channels in (None, 0, shape[-1])
    if not fits or values.dtype.kind not in "biuf":
        form = "(H, W)" if channels == 0 else f"(H, W, {channels or 'C'})"
        raise ValueError(
            f"{path} must hold numbers of shape {form}, found {values.dtype} {shape}; restore it from its source"
        )
    if channels == 0 and not np.isfinite(values).all():
        raise ValueError(f"{path} must hold whole numbers, found NaN or infinity; restore it from its source")
    return values


def dense_losses(outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """MTAN's losses, over the pixels that have a value: cross-entropy, L1 of the depth, 1 - cosine of the normals.

    Args:
        outputs: some of ``"segmentation"`` (B, C, H, W), ``"depth"`` (B, 1, H, W) and ``"normal"`` (B, 3, H, W).
        batch: the targets, as :class:`DenseFolder` gives them.
    """
    losses = {}
    if "segmentation" in outputs:
        losses["segmentation"] = cross_entropy(outputs["segmentation"], batch["segmentation"], ignore_index=-1)
    if "depth" in outputs:
        known = batch["depth"] != 0
        losses["depth"] = (outputs["depth"] - batch["depth"])[known].abs().mean()
    if "normal" in outputs:
        known = (batch["normal"] != 0).any(1)
        losses["normal"] = (1.0 - cosine_similarity(outputs["normal"], batch["normal"], dim=1))[known].mean()
    return losses


class DenseMeter:
    """Metrics over all pixels of a split that have a value, added up batch by batch, under the baselines' names.

    Shares in %, angles in degrees. Published scripts that average over batches differ in the last digits.

    Args:
        classes: of the segmentation.
        relative_scale: 1, or 100 for relative depth errors in %, as in Cityscapes' tables.
    """

    def __init__(self, classes: int, *, relative_scale: float = 1.0) -> None:
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.relative_scale = relative_scale
        self._depth: list[torch.Tensor] = []
        self._angles: list[torch.Tensor] = []

    @torch.no_grad()
    def add(self, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, torch.Tensor]) -> None:
        """Count one batch."""
        if "segmentation" in outputs:
            said, labels = outputs["segmentation"].argmax(1), batch["segmentation"]
            known = labels >= 0
            cells = labels[known] * len(self.confusion) + said[known]
            self.confusion += (
                torch.bincount(cells, minlength=self.confusion.numel()).reshape(self.confusion.shape).cpu()
            )
        if "depth" in outputs:
            known = batch["depth"] != 0
            missed = (outputs["depth"] - batch["depth"])[known].abs().double()
            self._depth.append(torch.stack([missed, missed / batch["depth"][known].double()]).cpu())
        if "normal" in outputs:
            known = (batch["normal"] != 0).any(1)
            cosines = cosine_similarity(outputs["normal"].double(), batch["normal"].double(), dim=1)[known]
            self._angles.append(cosines.clamp(-1.0, 1.0).acos().rad2deg().cpu())

    def values(self) -> dict[str, float]:
        """The metrics of what was counted; mIoU over classes that occur, in labels or in outputs."""
        found = {}
        if self.confusion.any():
            hits = self.confusion.diagonal().double()
            union = self.confusion.sum(0) + self.confusion.sum(1) - self.confusion.diagonal()
            found["mIoU"] = 100.0 * float((hits / union)[union > 0].mean())
            found["pixel accuracy"] = 100.0 * float(hits.sum() / self.confusion.sum())
        if self._depth:
            absolute, relative = torch.cat(self._depth, 1).mean(1).tolist()
            found |= {"absolute error": absolute, "relative error": self.relative_scale * relative}
        if self._angles:
            angles = torch.cat(self._angles)
            found |= {"mean angle": float(angles.mean()), "median angle": float(np.median(angles.numpy()))}
            found |= {
                f"within {limit:g}": 100.0 * float((angles < limit).double().mean()) for limit in (11.25, 22.5, 30)
            }
        return found


def stacked(items: Sequence[Pixels]) -> Pixels:
    """A batch of items of a :class:`DenseFolder`."""
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}
