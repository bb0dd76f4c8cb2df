"""CelebA from the files that torchvision knows: forty yes-or-no attributes of a face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ._text import read_lines

PARTS = {"train": "0", "validation": "1", "test": "2"}


class CelebA(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images (3, size, size) in [0, 1] and attributes (40,) as 0 and 1.

    ``ROOT`` holds ``list_attr_celeba.txt``, ``list_eval_partition.txt`` and the folder ``img_align_celeba``.

    Args:
        root: the folder.
        part: ``"train"``, ``"validation"`` or ``"test"``, as the partition file says.
        size: pixels along each side.

    Raises:
        ValueError: a line of the files is not what it should be, ``part`` is none of the three, or, when an image is
            taken, it cannot be read.
        FileNotFoundError: a file is not there.
    """

    def __init__(self, root: str | Path, part: str, *, size: int = 64) -> None:
        if part not in PARTS:
            raise ValueError(f"part must be one of {list(PARTS)}, found {part!r}")
        self.root, self.size = Path(root), size
        where = self.root / "list_eval_partition.txt"
        rows = [line.split() for line in read_lines(where) if line.strip()]
        wrong = next((row for row in rows if len(row) != 2 or row[1] not in PARTS.values()), None)
        if wrong is not None:
            raise ValueError(f"{where}: a line must be a file's name and 0, 1 or 2, found {' '.join(wrong)!r}")
        self.attributes, values = _read_attributes(self.root / "list_attr_celeba.txt")
        self.names = [name for name, place in rows if place == PARTS[part]]
        lost = [name for name in self.names if name not in values]
        if lost:
            raise ValueError(f"{self.root / 'list_attr_celeba.txt'} has no line of {lost[0]} ({len(lost)} are missing)")
        self.values = torch.tensor([values[name] for name in self.names], dtype=torch.float32)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        path = self.root / "img_align_celeba" / self.names[index]
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB").resize((self.size, self.size)), dtype=np.float32) / 255.0
        except FileNotFoundError:
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # as PIL's formats raise
            raise ValueError(f"{path} cannot be read as an image: {error}; restore it from its source") from error
        return torch.from_numpy(pixels).movedim(-1, 0), self.values[index]


def _read_attributes(path: Path) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """The names in the second line, and for each file its values in the lines below."""
    _, header, *lines = [*read_lines(path), "", ""]  # of an empty file, too
    if not header.strip():
        raise ValueError(f"{path}: the second line must name the attributes, found none")
    names = tuple(header.split())
    values = {}
    for line in lines:
        if not line.strip():
            continue
        name, *signs = line.split()
        if len(signs) != len(names) or not set(signs) <= {"-1", "1"}:
            raise ValueError(f"{path}: the line of {name} must have {len(names)} values, each -1 or 1")
        values[name] = [int(sign == "1") for sign in signs]
    return names, values
