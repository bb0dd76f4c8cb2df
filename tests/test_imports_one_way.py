"""Imports point one way, no module is in a circle, and what a package keeps to itself stays there."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import mtopt

ROOT = Path(mtopt.__file__).parent

FROM_BELOW = (
    *("linalg", "solvers", "distributed", "combiners", "pareto", "problems", "plotting"),
    *("autograd", "training", "integrations", "experiments", "testing", "cli", "__main__"),
)
"""Each package imports from those before it alone. The modules beside them (files, errors, text) import none."""


class Import(NamedTuple):
    """``module`` takes ``name`` (None: the module itself) from ``source``."""

    module: str
    source: str
    name: str | None


def read_modules() -> dict[str, str]:
    """The source text of each module of mtopt, by name."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ("mtopt", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(encoding="utf-8")
    return found


def imports_of(module: str, text: str, known: Mapping[str, object]) -> Iterator[Import]:
    """The imports of mtopt by mtopt, those within functions and for type checkers, too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import, which this test does not read"
            source = node.module or ""
            for alias in node.names if source.split(".")[0] == "mtopt" else ():
                whole = f"{source}.{alias.name}"
                yield Import(module, whole, None) if whole in known else Import(module, source, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "mtopt":
                    yield Import(module, alias.name, None)


MODULES = read_modules()
PACKAGES = {name for name in MODULES if any(other.startswith(f"{name}.") for other in MODULES)}
IMPORTS = [found for module, text in MODULES.items() for found in imports_of(module, text, MODULES)]


def part_of(module: str) -> str:
    """``"training"`` for ``mtopt.training.gen._fit``; empty for mtopt itself."""
    return module.partition(".")[2].partition(".")[0]


def owner_of(found: Import) -> str | None:
    """The package to which what is imported is private, if its name, or that of a part of its path, says so."""
    parts = [*found.source.split("."), *([found.name] if found.name else [])]
    private = [n for n, part in enumerate(parts) if part.startswith("_") and not part.endswith("__")]
    return None if not private else ".".join(parts[: private[0]])


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def private_imports() -> list[Import]:
    """Those of something that is private to a package in which the importing module is not."""
    return [found for found in IMPORTS if (owner := owner_of(found)) and not is_within(found.module, owner)]


def test_no_package_imports_underscore_modules_of_another() -> None:
    wrong = private_imports()
    assert not wrong, "export what is needed from the owner's __init__:\n" + "\n".join(map(str, wrong))


def test_every_package_has_its_place() -> None:
    packages = {part_of(name) for name in PACKAGES} - {""}
    assert packages <= set(FROM_BELOW), f"say in FROM_BELOW where these stand: {packages - set(FROM_BELOW)}"


@pytest.mark.parametrize("package", [name for name in FROM_BELOW if f"mtopt.{name}" in MODULES])
def test_imports_point_downwards(package: str) -> None:
    below = FROM_BELOW[: FROM_BELOW.index(package)]
    wrong = [
        found
        for found in IMPORTS
        if part_of(found.module) == package
        and (there := part_of(found.source)) != package
        and there in ("", *FROM_BELOW)
        and there not in below
    ]
    assert not wrong, f"{package} may import from {below}:\n" + "\n".join(map(str, wrong))


def test_what_all_share_knows_no_package() -> None:
    wrong = [
        found
        for found in IMPORTS
        if (here := part_of(found.module)) not in ("", *FROM_BELOW) and part_of(found.source) in ("", *FROM_BELOW, here)
    ]
    assert not wrong, "\n".join(map(str, wrong))


def test_no_module_is_in_a_circle() -> None:
    """Within functions and for type checkers, too: there a circle hides, and comes out with the next import."""
    wanted = {name: {f.source for f in IMPORTS if f.module == name and f.source != name} for name in MODULES}
    wanted["mtopt"] = set()  # its names are imported when they are asked for
    left = dict(wanted)
    while free := [name for name, sources in left.items() if not sources & left.keys()]:
        for name in free:
            del left[name]
    assert not left, "in a circle, or behind one:\n" + "\n".join(
        f"{n} -> {sorted(s & left.keys())}" for n, s in left.items()
    )


@pytest.mark.parametrize(
    ("module", "line", "owner"),
    [
        ("mtopt.training._loop", "from mtopt.autograd._step import Step", "mtopt.autograd"),
        ("mtopt.training._loop", "from mtopt.training.gen._fit import fit_parabola", "mtopt.training.gen"),
        ("mtopt.training._loop", "import mtopt.autograd._step", "mtopt.autograd"),
        ("mtopt.training._loop", "def f():\n    from mtopt.solvers import _simplex", "mtopt.solvers"),
        ("mtopt.training._loop", "from mtopt.solvers import _hidden", "mtopt.solvers"),
        ("mtopt.training._loop", "from mtopt.autograd import backward", None),
        ("mtopt.training._loop", "from mtopt._version import __version__", None),
        ("mtopt.training.gen._fit", "from mtopt.training._random import seed_everything", None),
    ],
)
def test_the_reading_itself(module: str, line: str, owner: str | None) -> None:
    (found,) = imports_of(module, line, MODULES)
    here = owner_of(found)
    assert (here if here and not is_within(module, here) else None) == owner
