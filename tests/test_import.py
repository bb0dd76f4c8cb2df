"""``import mtopt`` is light, and the public names are there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mtopt

HEAVY = (
    *("scipy.optimize", "matplotlib", "moocore", "rich", "joblib", "sklearn", "pandas", "cvxpy", "sqlite3", "numba"),
    *("transformers", "lightning", "accelerate", "peft", "tensorboard"),
)

STABLE = (
    *("list_combiners", "create_combiner", "register_combiner", "backward", "JacobianAccumulator", "Objective"),
    *("Combiner", "LossCombiner", "NormCombiner", "GramianCombiner", "JacobianCombiner", "StepRecord"),
    *("MultiLossTrainer", "GeN", "compare", "problems", "pareto"),
)
"""The names that stay as they are."""


def test_nothing_heavy_is_imported_with_it() -> None:
    """The time of the import is then torch's; it is measured by hand, where no other process disturbs it."""
    code = f"import sys, mtopt; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []


def test_a_step_with_a_loss_rule_needs_no_scipy() -> None:
    code = (
        "import sys, torch, mtopt; p = torch.nn.Parameter(torch.ones(2));"
        "mtopt.backward([p.sum(), p.prod()], [p], mtopt.create_combiner('linear'));"
        "print('scipy.optimize' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["False"]


def test_every_public_name_is_there() -> None:
    assert set(STABLE) <= set(mtopt.__all__)
    for name in mtopt.__all__:
        assert getattr(mtopt, name) is not None
    assert set(mtopt.__all__) <= {*dir(mtopt), *mtopt._LAZY}


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mtopt' has no attribute 'no_such_name'"):
        _ = mtopt.no_such_name
