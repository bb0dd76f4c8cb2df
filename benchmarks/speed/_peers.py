"""The steps of other libraries, where these are installed; nothing of them is imported otherwise."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import torch

from ._floor import Step, descent
from .models import Shared

INSTALL = {"torchjd": 'pip install "mtopt[speed]"', "LibMTL": "a checkout of LibMTL on PYTHONPATH"}


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def missing() -> Iterator[str]:
    """A sentence for each peer that is left out."""
    for package, how in INSTALL.items():
        if not installed(package):
            yield f"{package} is not installed, and its lines are left out; to have them: {how}"


# -- TorchJD ------------------------------------------------------------------------------------------------------


def _torchjd() -> tuple[Any, Any]:
    return importlib.import_module("torchjd.autojac"), importlib.import_module("torchjd.aggregation")


def mtl_backward(model: Shared, aggregator: str, chunk: int | None = None, by_gramian: bool = False) -> Step:
    """``mtl_backward`` down from the features, and ``jac_to_grad``."""
    autojac, aggregation = _torchjd()
    optimizer, rule = descent(model), getattr(aggregation, aggregator)()
    more = {"optimize_gramian_computation": True} if by_gramian else {}

    def step() -> None:
        optimizer.zero_grad()
        features = model.features()
        autojac.mtl_backward(model.losses_of(features), features=features, parallel_chunk_size=chunk)
        autojac.jac_to_grad(model.trunk.parameters(), rule, **more)
        optimizer.step()

    return step


def backward(model: Shared, aggregator: str) -> Step:
    """``backward`` of all the parameters, heads among them."""
    autojac, aggregation = _torchjd()
    optimizer, rule = descent(model), getattr(aggregation, aggregator)()

    def step() -> None:
        optimizer.zero_grad()
        autojac.backward(model.losses())
        autojac.jac_to_grad(model.parameters(), rule)
        optimizer.step()

    return step


def autogram(model: Shared, weighting: str) -> Step:
    """The Gramian without the Jacobian, and one weighted backward."""
    engine = importlib.import_module("torchjd.autogram").Engine(model.trunk, batch_dim=None)
    optimizer, rule = descent(model), getattr(_torchjd()[1], weighting)()

    def step() -> None:
        optimizer.zero_grad()
        losses = torch.stack(model.losses())
        losses.backward(rule(engine.compute_gramian(losses)))  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


# -- LibMTL -------------------------------------------------------------------------------------------------------


def libmtl(model: Shared, rule: str, **options: Any) -> Step:
    """A rule of LibMTL, with what it asks of the model that it is mixed into."""
    weighting = getattr(_libmtl_rules(), rule)()
    optimizer = descent(model)
    weighting.task_num = len(model.heads)
    weighting.device = next(model.parameters()).device
    weighting.rep_grad = False
    weighting.get_share_params = model.trunk.parameters
    # zeros, as torch left them when LibMTL was written: its rules cannot do with None
    weighting.zero_grad_share_params = lambda: model.trunk.zero_grad(set_to_none=False)
    weighting.init_param()

    def step() -> None:
        optimizer.zero_grad()
        weighting.backward(torch.stack(model.losses()), **options)
        optimizer.step()

    return step


def _libmtl_rules() -> Any:
    """``LibMTL.weighting`` by itself: the package around it asks for torchvision, the rules do not."""
    if "LibMTL" not in sys.modules:
        found = importlib.util.find_spec("LibMTL")
        assert found is not None
        sys.modules["LibMTL"] = importlib.util.module_from_spec(found)
    return importlib.import_module("LibMTL.weighting")
