"""``import mtopt`` is light, and the public names are there."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import types

import pytest

import mtopt

HEAVY = (
    *("scipy", "scipy.optimize", "matplotlib", "moocore", "rich", "joblib", "sklearn", "pandas", "cvxpy", "sqlite3"),
    *("torch", "numba", "transformers", "lightning", "accelerate", "peft", "tensorboard"),
)

STABLE = (
    *("list_combiners", "create_combiner", "register_combiner", "backward", "JacobianAccumulator", "Objective"),
    *("Combiner", "LossCombiner", "NormCombiner", "GramianCombiner", "JacobianCombiner", "StepRecord"),
    *("MultiLossTrainer", "GeN", "compare", "diagnose", "problems", "pareto"),
)
"""The names that stay as they are."""


STAGES = {
    "import": "import mtopt",
    "packages": "import mtopt.problems, mtopt.pareto, mtopt.integrations",
    "a step with a loss rule": (
        "import torch; p = torch.nn.Parameter(torch.ones(2));"
        "mtopt.backward([p.sum(), p.prod()], [p], mtopt.create_combiner('linear'))"
    ),
}
"""What one new process does in turn, since starting it takes seconds."""


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """The heavy modules that are there after each stage."""
    report = f"; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    code = "import sys\n" + "\n".join(stage + report for stage in STAGES.values())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return {stage: line.split() for stage, line in zip(STAGES, done.stdout.splitlines(), strict=True)}


def test_nothing_heavy_is_imported_with_it(imported: dict[str, list[str]]) -> None:
    """Not torch either, so that a command that needs none answers at once."""
    assert imported["import"] == []


def test_its_packages_wait_for_what_they_are_asked(imported: dict[str, list[str]]) -> None:
    assert imported["packages"] == ["torch"]


def test_a_step_with_a_loss_rule_needs_no_scipy(imported: dict[str, list[str]]) -> None:
    assert "scipy.optimize" not in imported["a step with a loss rule"]


def test_every_public_name_is_there() -> None:
    assert set(STABLE) <= set(mtopt.__all__)
    for name in mtopt.__all__:
        assert getattr(mtopt, name) is not None


def test_dir_lists_everything_public_and_nothing_else() -> None:
    packages = {found.name for found in pkgutil.iter_modules(mtopt.__path__) if found.ispkg}
    assert {*STABLE, *packages} <= set(dir(mtopt))
    assert all(not name.startswith("_") or name == "__version__" for name in dir(mtopt))
    assert sorted(mtopt.__all__) == dir(mtopt)


@pytest.mark.parametrize("package", [mtopt, mtopt.plotting, mtopt.integrations], ids=lambda package: package.__name__)
def test_dir_of_what_is_imported_when_named_is_what_is_public(package: types.ModuleType) -> None:
    assert dir(package) == sorted(package.__all__)
    assert all(hasattr(package, name) for name in dir(package) if package is not mtopt.integrations)


def test_rules_are_there_flat_and_in_their_package() -> None:
    own = [mtopt.combiners.combiner_class(name) for name in mtopt.list_combiners()]
    for rule in (rule for rule in own if rule.__module__.startswith("mtopt.combiners")):
        assert rule.__name__ in mtopt.__all__, f"add {rule.__name__} to mtopt/__init__.py"
        assert getattr(mtopt, rule.__name__) is getattr(mtopt.combiners, rule.__name__) is rule


def test_star_brings_what_dir_shows() -> None:
    code = "from mtopt import *; import mtopt; print(sorted(set(mtopt.__all__) - set(dir())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_what_moved_is_found_where_it_was() -> None:
    for name in ("Gradients", "Place", "gramian_of", "norm_of"):
        assert getattr(mtopt.combiners, name) is getattr(mtopt.linalg, name)
    assert mtopt.solvers.Precision is mtopt.linalg.Precision


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mtopt' has no attribute 'no_such_name'"):
        _ = mtopt.no_such_name
