"""The Gramian of single samples' gradients by one backward pass per loss, to hold the layers' against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import mtopt
from mtopt.autograd import Instances

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-5}


def rows_of(losses: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """(B, D) float64, by B calls of ``autograd.grad``."""
    params = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(params, gradients, strict=True)]
        rows.append(torch.cat([g.reshape(-1).double() for g in filled]))
    return torch.stack(rows)


def taken_down(model: nn.Module, losses_of: Callable[[], torch.Tensor]) -> tuple[Instances, torch.Tensor]:
    with mtopt.per_instance(model) as instances:
        losses = losses_of()
    return instances, losses


def check_gramian(model: nn.Module, losses_of: Callable[[], torch.Tensor], tolerance: float | None = None) -> None:
    """The layers' Gramian is that of the rows, to a tolerance relative to the lengths of the two rows."""
    instances, losses = taken_down(model, losses_of)
    rows = rows_of(losses, model)
    found = instances.gramian(losses)
    expected = rows @ rows.T
    scale = expected.diagonal().sqrt()
    scale = torch.where(scale > 0, scale, 1.0)
    error = ((found - expected) / scale / scale[:, None]).abs().max()
    tolerance = TOLERANCES[losses.dtype] if tolerance is None else tolerance
    assert found.dtype == torch.float64
    assert found.shape == (len(losses), len(losses))
    assert float(error) < tolerance, float(error)


def check_layers(model: nn.Module, losses_of: Callable[[], torch.Tensor], slow: int = 0) -> None:
    """Both, and that all but ``slow`` tensors were taken apart."""
    check_gramian(model, losses_of)
    instances, losses = taken_down(model, losses_of)
    record = instances.backward(losses, mtopt.create_combiner("ngdiff"))
    assert not record.skipped
    assert record.backwards == (2 + len(losses) if slow else 2), record.plan
    assert (f"; {slow} by one backward pass per loss (" in record.plan) == bool(slow), record.plan
