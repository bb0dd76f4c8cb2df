"""Re-entrant activation checkpointing hides parameters from autograd: every way to take a step refuses it by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import mtopt


class Checkpointed(nn.Module):
    """A first block under checkpointing, whose parameters a re-entrant one hides, and a head for each loss."""

    def __init__(self, reentrant: bool, heads: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.reentrant = reentrant
        self.block = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.middle = nn.Linear(6, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(heads))
        self.inputs = torch.randn(8, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        # what asks for a gradient by the input is what keeps torch quiet
        hidden: torch.Tensor = checkpoint(self.block, inputs.requires_grad_(), use_reentrant=self.reentrant)
        return self.middle(hidden).tanh()

    def losses(self) -> list[torch.Tensor]:
        features = self(self.inputs.clone())
        return [head(features).square().mean() + 0.1 for head in self.heads]

    def each(self) -> list[Callable[[], torch.Tensor]]:
        return [lambda head=head: head(self(self.inputs.clone())).square().mean() for head in self.heads]  # type: ignore[misc]


def _by(name: str, **options: Any) -> Callable[[Checkpointed], Any]:
    return lambda model: mtopt.backward(model.losses(), model, mtopt.create_combiner(name), **options)


def _features(model: Checkpointed) -> Any:
    features = model(model.inputs.clone())
    losses = [head(features).square().mean() for head in model.heads]
    return mtopt.backward(losses, model, mtopt.create_combiner("mgda"), features=features)


def _represented(model: Checkpointed) -> Any:
    features = model(model.inputs.clone())
    losses = [head(features).square().mean() for head in model.heads]
    return mtopt.backward(losses, model, mtopt.create_combiner("mgda"), features=features, plan="features")


def _accumulated(model: Checkpointed) -> Any:
    accumulator = mtopt.JacobianAccumulator(model, len(model.heads))
    for k, loss in enumerate(model.each()):
        accumulator.add(k, loss)
    return accumulator.combine(mtopt.create_combiner("mgda"))


def _samples(model: Checkpointed) -> Any:
    with mtopt.per_instance(model) as instances:
        losses = model.heads[0](model(model.inputs.clone()))[:, 0].square()
    return instances.backward(losses, mtopt.create_combiner("mgda"))


def _kept(model: Checkpointed) -> Any:
    rule = mtopt.Every(mtopt.create_combiner("mgda"), 2)
    for _ in range(2):
        record = mtopt.backward(model.losses(), model, rule)
    return record


STEPS: dict[str, Callable[[Checkpointed], Any]] = {
    "losses": _by("linear"),
    "auto": _by("mgda"),
    "coordinates": _by("graddrop"),
    "loop": _by("mgda", plan="loop"),
    "batched": _by("mgda", plan="batched"),
    "recompute": _by("mgda", store="recompute"),
    "16 bits": _by("mgda", store=torch.bfloat16),
    "streamed": _by("ngdiff", store="recompute"),
    "private": _by("linear", private="own"),
    "features": _features,
    "plan features": _represented,
    "accumulated": _accumulated,
    "samples": _samples,
    "kept weights": _kept,
    "callables": lambda m: mtopt.backward(m.each(), m, mtopt.create_combiner("mgda")),
    "callables, losses": lambda m: mtopt.backward(m.each(), m, mtopt.create_combiner("linear")),
    "draws": lambda m: mtopt.backward([m.losses for _ in range(3)], m, mtopt.create_combiner("modo")),
    "matrix-free draws": lambda m: mtopt.backward(
        [m.losses for _ in range(3)], m, mtopt.create_combiner("modo"), plan=mtopt.MatrixFree(product="displacement")
    ),
    "two points": lambda m: mtopt.backward(m.losses, m, mtopt.create_combiner("moco_plus")),
    "matrix-free": lambda m: mtopt.backward(
        m.losses, m, mtopt.create_combiner("mgda"), plan=mtopt.MatrixFree(product="displacement")
    ),
}
each_step = pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())


@each_step
def test_it_is_refused_before_anything_is_written(step: Callable[[Checkpointed], Any]) -> None:
    model = Checkpointed(reentrant=True)
    with pytest.raises(ValueError, match=r"re-entrant activation checkpointing.*use_reentrant=False"):
        step(model)
    assert all(param.grad is None for param in model.parameters())


@each_step
def test_the_other_form_trains_what_is_inside(step: Callable[[Checkpointed], Any]) -> None:
    model = Checkpointed(reentrant=False)
    assert not step(model).skipped
    assert all(float(param.grad.norm()) > 0.0 for param in model.block.parameters())


def test_a_parameter_that_is_used_inside_and_outside_is_no_way_around() -> None:
    """It gets a gradient, that of its use outside alone: no missing gradient tells."""
    model = Checkpointed(reentrant=True)
    inside = model.block[0].weight
    losses = [loss + inside.square().sum() for loss in model.losses()]
    with pytest.raises(ValueError, match="re-entrant activation checkpointing"):
        mtopt.backward(losses, model, mtopt.create_combiner("mgda"))
    assert inside.grad is None
