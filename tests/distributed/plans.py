"""Which plans run on several ranks, and how exactly they must agree with one process."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

import mtopt


class PlanCase(NamedTuple):
    """Steps of a rule with a plan; ``within`` of the one process's direction, relative to its largest entry."""

    rule: str
    tasks: int = 3
    kind: str = "tensors"
    options: Mapping[str, Any] = MappingProxyType({})
    wrap: str = "ddp"
    within: float = 1e-12
    says: str = ""

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.rule, self.tasks, self.kind, dict(self.options), self.wrap


PLANS = {
    "loop": PlanCase("mgda", 4, options={"plan": "loop"}, says="one backward pass per loss"),
    "bare": PlanCase("pcgrad", wrap="bare"),
    "unused": PlanCase("mgda", wrap="unused"),
    "views": PlanCase("nash_mtl", wrap="views"),
    "combined": PlanCase("mgda", options={"private": "combined"}),
    "weighted": PlanCase("mgda", options={"private": "weighted"}),
    "batched": PlanCase("mgda", options={"plan": "batched"}, says="in one batched"),
    "features_first": PlanCase("mgda", options={"with_features": True}, says="features first"),
    "batched_features": PlanCase(
        "mgda",
        options={"plan": "batched", "with_features": True},
        says="features first: heads once, then the trunk for",
    ),
    "representation": PlanCase("mgda", options={"plan": "features", "with_features": True}, says="features only"),
    "representation_weighted": PlanCase(
        "mgda_ub", options={"with_features": True, "private": "weighted"}, says="features only"
    ),
    # what is rounded to 16 bits may differ in its last bit there
    "bfloat16": PlanCase("mgda", options={"store": torch.bfloat16}, within=2e-2, says="kept in bfloat16"),
    "float16": PlanCase("pcgrad", options={"store": torch.float16}, within=4e-3, says="kept in float16"),
    "streamed": PlanCase("ngdiff", options={"store": "recompute"}, says="added up as they come"),
    "streamed_features": PlanCase(
        "ngdiff", options={"store": "recompute", "with_features": True}, says="features first"
    ),
    "blockwise": PlanCase("mgda", options={"store": "recompute"}, says="block by block"),
    "blockwise_norms": PlanCase("db_mtl", options={"plan": "loop"}),
    "kept_weights": PlanCase("every"),
    "kept_weights_draws": PlanCase("every_draws", kind="draws"),
    "layers": PlanCase("layers"),
    "smoothed": PlanCase("smoothed"),
    "normalized": PlanCase("normalized"),
    "loss_values": PlanCase("dwa", says="one weighted backward"),
    "losses_combined": PlanCase("uw", options={"private": "own"}),
    "callables": PlanCase("mgda", kind="callables", says="one batch after the other"),
    "callables_of_losses": PlanCase("stch", kind="callables"),
    "two_points": PlanCase("moco_plus", kind="callable", says="and once more at the parameters"),
    "draws": PlanCase("modo", kind="draws", says="2 draws"),
    "draws_sdmgrad": PlanCase("sdmgrad", kind="draws"),
    "accumulated": PlanCase("mgda", kind="accumulated", says="gradients combined"),
    "accumulated_losses": PlanCase("dwa", kind="accumulated"),
    "matrix_free": PlanCase("mgda", kind="callable", options={"plan": "matrix_free"}, says="forward-mode"),
    # a displacement of sqrt(eps) makes so much of rounding
    "displaced": PlanCase(
        "mgda",
        kind="callable",
        options={"plan": mtopt.MatrixFree(product="displacement")},
        within=1e-6,
        says="displaced forward",
    ),
    "displaced_nash": PlanCase(
        "nash_mtl", kind="callable", options={"plan": mtopt.MatrixFree(product="displacement")}, within=1e-6
    ),
    "matrix_free_every": PlanCase("every", kind="callable", options={"plan": "matrix_free"}),
    "matrix_free_draws": PlanCase("modo", kind="draws", options={"plan": "matrix_free"}, says="draws 1 and 2"),
    "displaced_draws": PlanCase(
        "modo", kind="draws", options={"plan": mtopt.MatrixFree(product="displacement")}, within=1e-6
    ),
}
