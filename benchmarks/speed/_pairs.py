"""The rules that mtopt and TorchJD 0.18 share, set up to answer the same question."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

import mtopt

from . import _errors
from ._errors import Measure

Weigh = Callable[[torch.Tensor], torch.Tensor]

CAGRAD_C = 0.4
FAIRGRAD_ALPHA = 2.0

INSTALL = 'pip install "mtopt[speed]", or pip install "torchjd[full]==0.18.*"'


def _no_options(count: int) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Pair:
    """A rule on both sides.

    Attributes:
        name: the rule in mtopt's registry.
        title: the rule in tables and figures, and TorchJD's name of it.
        peer: TorchJD's rule, from its module ``torchjd.aggregation`` and K.
        measure: the error of an answer; None for a rule that projects in random order, each side in its own.
        meaning: what ``measure`` measures.
        options: mtopt's hyper-parameters for K, where its defaults are not TorchJD's.
        takes: what TorchJD's rule is given. ``"factor"``: it takes gradients, and gets the fewest coordinates there
            are, a K x K factor of the Gramian, so that its time is a lower bound.
        gives: what TorchJD's rule answers: weights, or the direction in the coordinates of the factor.
        fewest: the smallest K that TorchJD's rule takes.
    """

    name: str
    title: str
    peer: Callable[[Any, int], Weigh]
    measure: Measure | None
    meaning: str
    options: Callable[[int], Mapping[str, Any]] = _no_options
    takes: Literal["gramian", "factor"] = "gramian"
    gives: Literal["weights", "direction"] = "weights"
    fewest: int = 2

    def own(self, count: int) -> Weigh:
        """mtopt's rule, fresh, for K = ``count``."""
        rule = mtopt.create_combiner(self.name, **self.options(count))
        weigh: Weigh = rule.weights  # type: ignore[attr-defined]  # every shared rule is a GramianCombiner
        return weigh


_AWAY = "distance to the exact direction, over its length"
_UNEQUAL = "projections on the unit gradients: largest deviation from their mean, relative"
_RANDOM = "none: projects in random order"

PAIRS = (
    Pair("upgrad", "UPGrad", lambda torchjd, _: torchjd.UPGradWeighting(), _errors.upgrad, _AWAY),
    Pair("dualproj", "DualProj", lambda torchjd, _: torchjd.DualProjWeighting(), _errors.dualproj, _AWAY),
    Pair(
        "mgda",
        "MGDA",
        lambda torchjd, _: torchjd.MGDAWeighting(),
        _errors.mgda,
        "excess length over the shortest vector of the hull, relative",
    ),
    Pair(
        "cagrad",
        "CAGrad",
        lambda torchjd, _: torchjd.CAGradWeighting(c=CAGRAD_C),
        lambda gramians, weights: _errors.cagrad(gramians, weights, CAGRAD_C),
        "duality gap over ||mean gradient|| ||longest gradient||",
        options=lambda _: {"c": CAGRAD_C},
    ),
    Pair(
        "nash_mtl",
        "NashMTL",
        # not clipped, as the paper's rule and mtopt's default
        lambda torchjd, count: torchjd.NashMTL(n_tasks=count, max_norm=0.0).weighting,
        _errors.nash_mtl,
        "max |w_k (G w)_k - 1|, at the best length",
        takes="factor",
    ),
    Pair(
        "fairgrad",
        "FairGrad",
        lambda torchjd, _: torchjd.FairGradWeighting(alpha=FAIRGRAD_ALPHA),
        lambda gramians, weights: _errors.fairgrad(gramians, weights, FAIRGRAD_ALPHA),
        "max |w_k^(1/alpha) (G w)_k - 1|",
        options=lambda _: {"alpha": FAIRGRAD_ALPHA},
    ),
    Pair("imtl_g", "IMTLG", lambda torchjd, _: torchjd.IMTLGWeighting(), _errors.unequal_projections, _UNEQUAL),
    Pair(
        "aligned_mtl",
        "AlignedMTL",
        lambda torchjd, _: torchjd.AlignedMTLWeighting(),
        _errors.aligned_mtl,
        _AWAY,
        options=lambda count: {"preference": [1.0 / count] * count},
    ),
    Pair(
        "config",
        "ConFIG",
        lambda torchjd, _: torchjd.ConFIG(),
        _errors.unequal_projections,
        _UNEQUAL,
        takes="factor",
        gives="direction",
    ),
    Pair(
        "pcd",
        "PCD",
        lambda torchjd, _: torchjd.PCDWeighting(eps=0.0),
        _errors.pcd,
        _AWAY,
    ),
    Pair("pcgrad", "PCGrad", lambda torchjd, _: torchjd.PCGradWeighting(), None, _RANDOM),
    Pair(
        "gradvac",
        "GradVac",
        lambda torchjd, _: torchjd.GradVacWeighting(beta=0.5),
        None,
        _RANDOM,
        options=lambda _: {"beta": 0.5},
    ),
    Pair(
        "krum",
        "Krum",
        lambda torchjd, _: torchjd.KrumWeighting(n_byzantine=0),
        _errors.krum,
        _AWAY,
        options=lambda _: {"distance": "norm"},
        fewest=3,
    ),
)
"""Left out: the rules whose weights are constant or drawn, where there is nothing to compute."""


def peer_module() -> Any | None:
    """``torchjd.aggregation``, or None where TorchJD is not installed."""
    return importlib.import_module("torchjd.aggregation") if importlib.util.find_spec("torchjd") else None
