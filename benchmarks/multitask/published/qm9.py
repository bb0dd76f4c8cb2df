"""QM9 from PyG's raw files: molecules in gdb9.sdf, their properties in gdb9.sdf.csv."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

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
        ValueError: the two files do not have the same molecules, or a column is missing.
    """

    def __init__(self, root: str | Path) -> None:
        folder = Path(root)
        with (folder / "gdb9.sdf.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        missing = [name for name in TARGETS if not rows or name not in rows[0]]
        if missing:
            raise ValueError(f"{folder / 'gdb9.sdf.csv'} must have the columns {TARGETS}, missing {missing}")
        blocks = (folder / "gdb9.sdf").read_text().split("$$$$\n")
        blocks = [block for block in blocks if block.strip()]
        if len(blocks) != len(rows):
            raise ValueError(f"{folder}: gdb9.sdf has {len(blocks)} molecules and gdb9.sdf.csv {len(rows)}")
        left_out = _uncharacterized(folder / "uncharacterized.txt")
        kept = [index for index in range(len(rows)) if index not in left_out]
        self._blocks = [blocks[index] for index in kept]
        factors = torch.tensor([SCALES.get(name, 1.0) for name in TARGETS], dtype=torch.float64)
        table = torch.tensor([[float(rows[index][name]) for name in TARGETS] for index in kept], dtype=torch.float64)
        self.targets = (table * factors).float()

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, index: int) -> Molecule:
        lines = self._blocks[index].splitlines()
        count = int(lines[3][:3])  # V2000: a counts line after three of header, then an atom a line
        atoms = [line.split() for line in lines[4 : 4 + count]]
        positions = torch.tensor([[float(value) for value in atom[:3]] for atom in atoms])
        return Molecule(tuple(atom[3] for atom in atoms), positions, self.targets[index])


def _uncharacterized(path: Path) -> set[int]:
    """Positions, from 0, of molecules whose geometry was not consistent: lines that begin with a number, from 1."""
    if not path.exists():
        return set()
    heads = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    return {int(head) - 1 for head in heads if head.isdigit()}
