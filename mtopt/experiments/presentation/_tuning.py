"""How configurations were chosen, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtopt.experiments._tuners import HALTON

_SAMPLERS = {
    "tpe": "the tree-structured Parzen estimator",
    "gp": "a Gaussian process",
    "nsga2": "NSGA-II, with that score as its one objective",
}


def tell_tuning(request: Mapping[str, Any]) -> str:
    """The paragraph on tuning: who proposed the configurations, over what, and on which split one was chosen."""
    tuner = request.get("tuning", {"name": HALTON})
    points = "scrambled Halton points"
    if tuner["name"] != HALTON:
        sampler = _SAMPLERS.get(tuner["name"], tuner["name"])
        points += f" and, in view of the scores so far, proposals of {tuner.get('package', 'Optuna')} ({sampler}),"
    return (
        "Every rule tried the same number of configurations on a seed kept for tuning: the middle learning rate with "
        f"the rule's defaults, then {points} over the learning rate, the rule's own hyper-parameters and, where a run "
        "is one training, the weights of static scalarization. The configuration with the largest hypervolume on the "
        "validation split was then run with every seed; the test split was looked at only for this page."
    )
