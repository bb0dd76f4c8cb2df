"""Single-task results that published tables measure Delta_m from, and Delta_m in both averagings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mtopt


@dataclass(frozen=True)
class Baseline:
    """One metric of a single-task model.

    Attributes:
        metric: its name.
        task: which task it is of.
        value: what the single-task model has.
        higher_is_better: its sense.
    """

    metric: str
    task: str
    value: float
    higher_is_better: bool = False


NYUV2 = (
    Baseline("mIoU", "segmentation", 38.30, True),
    Baseline("pixel accuracy", "segmentation", 63.76, True),
    Baseline("absolute error", "depth", 0.6754),
    Baseline("relative error", "depth", 0.2780),
    Baseline("mean angle", "normal", 25.01),
    Baseline("median angle", "normal", 19.21),
    Baseline("within 11.25", "normal", 30.14, True),
    Baseline("within 22.5", "normal", 57.20, True),
    Baseline("within 30", "normal", 69.15, True),
)
"""SegNet with MTAN, shares in %, angles in degrees: what CAGrad's, Nash-MTL's and FAMO's tables are measured from."""

CITYSCAPES = (
    Baseline("mIoU", "segmentation", 74.01, True),
    Baseline("pixel accuracy", "segmentation", 93.16, True),
    Baseline("absolute error", "depth", 0.0125),
    Baseline("relative error", "depth", 27.77),
)
"""Seven classes; the same papers."""

QM9_BASELINES = tuple(
    Baseline(name, name, value)
    for name, value in (
        *(("mu", 0.0671), ("alpha", 0.1814), ("homo", 60.576), ("lumo", 53.915), ("r2", 0.5027), ("zpve", 4.539)),
        *(("u0_atom", 58.838), ("u298_atom", 64.244), ("h298_atom", 63.852), ("g298_atom", 66.223), ("cv", 0.07212)),
    )
)
"""Mean absolute errors, energies in meV."""


def delta_of(values: Mapping[str, float], baselines: Sequence[Baseline]) -> dict[str, float]:
    """Delta_m in %, lower is better: ``"by metric"`` as in the papers, ``"by task"`` with each task's metrics averaged
    first; see :func:`mtopt.pareto.delta_m`.

    Raises:
        ValueError: ``values`` lacks a metric of ``baselines``.
    """
    missing = [each.metric for each in baselines if each.metric not in values]
    if missing:
        raise ValueError(f"values must hold every metric of the baselines; missing {missing}, found {list(values)}")
    found = [values[each.metric] for each in baselines]
    bases, senses = [each.value for each in baselines], [each.higher_is_better for each in baselines]
    tasks = [each.task for each in baselines]
    return {
        "by metric": mtopt.pareto.delta_m(found, bases, senses),
        "by task": mtopt.pareto.delta_m(found, bases, senses, average="task", tasks=tasks),
    }
