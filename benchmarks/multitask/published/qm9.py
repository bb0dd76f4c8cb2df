"""QM9 from PyG's raw files: molecules in gdb9.sdf, their properties in gdb9.sdf.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from ._text import read_lines

TARGETS = ("mu", "alpha", "homo", "lumo", "r2", "zpve", "u0_atom", "u298_atom", "h298_atom", "g298_atom", "cv")
"""The eleven of the multi-task tables, in their order: the energies of atomization, and not the gap."""

HARTREE, KCAL = 27.211386246, 0.04336414
"""In eV."""

SCALES = {
    **dict.fromkeys(("homo", "lumo", "zpve"), 1000.0 * HARTREE),
    **dict.fromkeys(("u0_atom", "u298_atom", "h298_atom", "g298_atom"), 1000.0 * KCAL),
}
"""From the file's units to meV; the other columns stay as they are."""


class Molecule(NamedTuple):
    """Elements' symbols (n), positions (n, 3) in angstrom, targets (11,) in the units of the tables."""

    elements: tuple[str, ...]
    positions: torch.Tensor
    targets: torch.Tensor


class QM9(Dataset[Molecule]):
    """The molecules of ``ROOT``, without those that ``uncharacterized.txt`` names, if it is there.

    Args:
        root: the folder, PyG's ``raw``.

    Raises:
        ValueError: the two files do not have the same molecules, a column is missing, or a value is no number; for a
            molecule's atoms when the molecule is taken.
        FileNotFoundError: one is not there.
    """

    def __init__(self, root: str | Path) -> None:
        folder = Path(root)
        self._path = folder / "gdb9.sdf"
        properties = folder / "gdb9.sdf.csv"
        try:
            rows = list(csv.DictReader(read_lines(properties)))
        except csv.Error as error:
            raise ValueError(f"{properties} is no table of comma-separated values: {error}") from error
        missing = [name for name in TARGETS if not rows or name not in rows[0]]
        if missing:
            raise ValueError(f"{properties} must have the columns {TARGETS}, missing {missing}")
        blocks = [block for block in _blocks(read_lines(self._path)) if any(map(str.strip, block))]
        if len(blocks) != len(rows):
            raise ValueError(f"{folder}: gdb9.sdf has {len(blocks)} molecules and gdb9.sdf.csv {len(rows)}")
        left_out = _uncharacterized(folder / "uncharacterized.txt")
        self._kept = [index for index in range(len(rows)) if index not in left_out]
        self._blocks = [blocks[index] for index in self._kept]
        factors = torch.tensor([SCALES.get(name, 1.0) for name in TARGETS], dtype=torch.float64)
        table = [_targets(rows[index], f"{properties}, molecule {index + 1}") for index in self._kept]
        self.targets = (torch.tensor(table, dtype=torch.float64).reshape(-1, len(TARGETS)) * factors).float()

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> Molecule:
        lines = self._blocks[index]
        try:
            count = int(lines[3][:3])  # V2000: a counts line after three of header, then an atom a line
            atoms = [line.split() for line in lines[4 : 4 + count]]
            positions = torch.tensor([[float(value) for value in atom[:3]] for atom in atoms]).reshape(count, 3)
            return Molecule(tuple(atom[3] for atom in atoms), positions, self.targets[index])
        except (ValueError, IndexError, RuntimeError) as error:
            raise ValueError(
                f"{self._path}, molecule {self._kept[index] + 1}: three lines, the number of atoms, and a line each "
                f"with x, y, z and the element were expected ({error}); restore the file from its source"
            ) from error


def _blocks(lines: Iterable[str]) -> Iterable[list[str]]:
    """The lines of each molecule."""
    block: list[str] = []
    for line in lines:
        if line.strip() == "$$$$":
            yield block
            block = []
        else:
            block.append(line)
    yield block


def _targets(row: Mapping[str, str | None], place: str) -> list[float]:
    found = []
    for name in TARGETS:
        try:
            value = float(row[name] or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{place}: {name} must be a finite number, found {row[name]!r:.40}")
        found.append(value)
    return found


def _uncharacterized(path: Path) -> set[int]:
    """Positions, from 0, of molecules whose geometry was not consistent: lines that begin with a number, from 1."""
    if not path.exists():
        return set()
    heads = [line.split()[0] for line in read_lines(path) if line.strip()]
    return {int(head) - 1 for head in heads if head.isdecimal() and len(head) < 10}
