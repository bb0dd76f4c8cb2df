"""mtopt: train one PyTorch model on several losses at once."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mtopt._errors import CheckpointError, InUseError, NonFiniteError, SolverError, UnknownNameError
from mtopt._losses import Objective
from mtopt._version import __version__
from mtopt.autograd import JacobianAccumulator, MatrixFree, StepRecord, backward, per_instance
from mtopt.combiners import (
    Clipped,
    Combiner,
    Every,
    GramianCombiner,
    JacobianCombiner,
    LossCombiner,
    MultiNormalized,
    Normalized,
    NormCombiner,
    PerGroup,
    Smoothed,
    create_combiner,
    list_combiners,
    register_combiner,
)

if TYPE_CHECKING:
    from mtopt import (
        autograd,
        combiners,
        diagnosis,
        distributed,
        experiments,
        integrations,
        linalg,
        pareto,
        plotting,
        problems,
        solvers,
        testing,
        training,
    )
    from mtopt.diagnosis import Diagnosis, diagnose
    from mtopt.experiments import Comparison, compare
    from mtopt.training import Callback, Evaluator, GeN, History, MultiLossTrainer, ProgressBar, seed_everything

__all__ = [
    "Callback",
    "CheckpointError",
    "Clipped",
    "Combiner",
    "Comparison",
    "Diagnosis",
    "Evaluator",
    "Every",
    "GeN",
    "GramianCombiner",
    "History",
    "InUseError",
    "JacobianAccumulator",
    "JacobianCombiner",
    "LossCombiner",
    "MatrixFree",
    "MultiLossTrainer",
    "MultiNormalized",
    "NonFiniteError",
    "NormCombiner",
    "Normalized",
    "Objective",
    "PerGroup",
    "ProgressBar",
    "Smoothed",
    "SolverError",
    "StepRecord",
    "UnknownNameError",
    "__version__",
    "autograd",
    "backward",
    "combiners",
    "compare",
    "create_combiner",
    "diagnose",
    "diagnosis",
    "distributed",
    "experiments",
    "integrations",
    "linalg",
    "list_combiners",
    "pareto",
    "per_instance",
    "plotting",
    "problems",
    "register_combiner",
    "seed_everything",
    "solvers",
    "testing",
    "training",
]

# What an existing loop does not need is imported when it is first named.
_LAZY: dict[str, tuple[str, str | None]] = {
    "autograd": ("mtopt.autograd", None),
    "combiners": ("mtopt.combiners", None),
    "distributed": ("mtopt.distributed", None),
    "linalg": ("mtopt.linalg", None),
    "solvers": ("mtopt.solvers", None),
    "pareto": ("mtopt.pareto", None),
    "plotting": ("mtopt.plotting", None),
    "problems": ("mtopt.problems", None),
    "experiments": ("mtopt.experiments", None),
    "integrations": ("mtopt.integrations", None),
    "testing": ("mtopt.testing", None),
    "training": ("mtopt.training", None),
    "diagnosis": ("mtopt.diagnosis", None),
    "Comparison": ("mtopt.experiments", "Comparison"),
    "Diagnosis": ("mtopt.diagnosis", "Diagnosis"),
    "diagnose": ("mtopt.diagnosis", "diagnose"),
    "Callback": ("mtopt.training", "Callback"),
    "Evaluator": ("mtopt.training", "Evaluator"),
    "GeN": ("mtopt.training", "GeN"),
    "History": ("mtopt.training", "History"),
    "MultiLossTrainer": ("mtopt.training", "MultiLossTrainer"),
    "ProgressBar": ("mtopt.training", "ProgressBar"),
    "compare": ("mtopt.experiments", "compare"),
    "seed_everything": ("mtopt.training", "seed_everything"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'mtopt' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    value = importlib.import_module(module)
    if attribute is not None:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
