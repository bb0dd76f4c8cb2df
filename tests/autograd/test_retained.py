"""Results inside the graph that retain their gradient: what K backwards leave there is what every plan leaves."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch

import mtopt
from tests.autograd.helpers import MultiHead, close

Made = tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]


def made(model: MultiHead) -> Made:
    """A result within the trunk and one at its end, both retained, and the losses."""
    hidden = model.trunk[:2](model.inputs)
    features = model.trunk[2:](hidden)
    hidden.retain_grad()
    features.retain_grad()
    return hidden, features, [model.loss(k, features) for k in range(len(model.heads))]


def expected(model: MultiHead) -> tuple[torch.Tensor, ...]:
    hidden, features, losses = made(model)
    return torch.autograd.grad(sum(losses[1:], losses[0]), (hidden, features))


def collected() -> None:
    """What was made goes among the old objects, where it has to be looked for in another place."""
    gc.collect()


@pytest.mark.parametrize("plan", ["loop", "batched"])
@pytest.mark.parametrize("given", [False, True], ids=["", "features"])
@pytest.mark.parametrize("between", [lambda: None, collected], ids=["young", "old"])
def test_retained_gradients_are_sums_over_the_losses(plan: Any, given: bool, between: Callable[[], None]) -> None:
    model = MultiHead(3)
    for _ in range(3):  # the first search looks at everything
        wanted = expected(model)
        hidden, features, losses = made(model)
        between()
        options = {"features": features} if given else {}
        mtopt.backward(losses, model, mtopt.create_combiner("mgda"), plan=plan, **options)
        for tensor, gradient in zip((hidden, features), wanted, strict=True):
            assert tensor.grad is not None
            close(tensor.grad.clone(), gradient)
        del tensor


def test_a_gradient_that_was_there_is_added_to() -> None:
    model = MultiHead(2)
    hidden, _, losses = made(model)
    hidden.grad = torch.ones_like(hidden)
    mtopt.backward(losses, model, mtopt.create_combiner("mgda"), plan="batched")
    close(hidden.grad, expected(model)[0] + 1.0)


def test_a_batch_that_fails_leaves_what_the_loop_leaves() -> None:
    class Alone(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
            return tensor * 2

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> Any:
            return gradient * (2 if bool(gradient.isfinite().all()) else 0)  # data-dependent: no batch

    model = MultiHead(2)
    hidden = Alone.apply(model.trunk[:2](model.inputs))
    features = model.trunk[2:](hidden)
    features.retain_grad()
    losses = [model.loss(k, features) for k in range(2)]
    (wanted,) = torch.autograd.grad(losses[0] + losses[1], features, retain_graph=True)
    features.grad = None
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda"), plan="batched")
    assert "not batched" in record.plan
    assert features.grad is not None
    close(features.grad.clone(), wanted)


def test_retained_results_of_other_graphs_are_left_alone() -> None:
    model, other = MultiHead(2), MultiHead(2, seed=1)
    hidden, _, losses = made(other)
    losses[0].backward()
    before = hidden.grad
    mtopt.backward(model.losses(), model, mtopt.create_combiner("mgda"), plan="batched")
    assert hidden.grad is before
