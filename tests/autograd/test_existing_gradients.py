"""What stands in ``.grad`` before a step: sparse, expanded, with a graph or made in inference mode, it is added to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from tests.autograd.helpers import MultiHead

Kind = Callable[[torch.Tensor], torch.Tensor]


def sparse(like: torch.Tensor) -> torch.Tensor:
    dense = torch.zeros_like(like)
    dense.view(-1)[0] = 3.0
    return dense.to_sparse()


def expanded(like: torch.Tensor) -> torch.Tensor:
    return torch.full((1,), 0.5, dtype=like.dtype).expand(like.shape)


def overlapping(like: torch.Tensor) -> torch.Tensor:
    """Neighbours share entries, as in what ``unfold`` gives."""
    return torch.arange(1.0, 1.0 + sum(like.shape), dtype=like.dtype).as_strided(like.shape, (1,) * like.ndim)


def requiring(like: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(like, requires_grad=True)


def with_graph(like: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(like, requires_grad=True) * 2.0


def inferred(like: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.full_like(like, 0.25)


KINDS = [sparse, expanded, overlapping, requiring, with_graph, inferred]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def _features(model: MultiHead, **options: Any) -> Any:
    features = model.features()
    losses = [model.loss(k, features) for k in range(3)]
    return mtopt.backward(losses, model, mtopt.create_combiner("mgda"), features=features, **options)


def _accumulated(model: MultiHead) -> Any:
    accumulator = mtopt.JacobianAccumulator(model, 3)
    for k in range(3):
        accumulator.add(k, model.losses()[k])
    return accumulator.combine(mtopt.create_combiner("mgda"))


def _samples(model: MultiHead, name: str) -> Any:
    with mtopt.per_instance(model) as instances:
        losses = sum(head(model.features())[:, 0].square() for head in model.heads)
    return instances.backward(losses, mtopt.create_combiner(name))


def _by(name: str, **options: Any) -> Callable[[MultiHead], Any]:
    return lambda model: mtopt.backward(model.losses(), model, mtopt.create_combiner(name), **options)


def _draws(model: MultiHead, **options: Any) -> Any:
    return mtopt.backward([model.losses] * 3, model, mtopt.create_combiner("modo"), **options)


STEPS: dict[str, Callable[[MultiHead], Any]] = {
    "losses": _by("linear"),
    "losses, own heads": _by("linear", private="own"),
    "inner products": _by("mgda"),
    "coordinates": _by("graddrop"),
    "batched": _by("mgda", plan="batched"),
    "recompute": _by("mgda", store="recompute"),
    "streamed": _by("ngdiff", store="recompute"),
    "features": _features,
    "representation": lambda model: _features(model, plan="features"),
    "accumulated": _accumulated,
    "samples": lambda model: _samples(model, "mgda"),
    "samples by losses": lambda model: _samples(model, "linear"),
    "draws": _draws,
    "two points": lambda model: mtopt.backward(model.losses, model, mtopt.create_combiner("moco_plus")),
    "matrix-free": lambda m: mtopt.backward(m.losses, m, mtopt.create_combiner("mgda"), plan="matrix_free"),
    "matrix-free draws": lambda model: _draws(model, plan="matrix_free"),
}


@each_kind
@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_it_is_added_to(step: Callable[[MultiHead], Any], kind: Kind) -> None:
    model = MultiHead(3)
    step(model)
    directions = [param.grad.clone() for param in model.parameters()]
    # the last ones, so that a step that fails at them has written to those before
    odd = [id(param) for param in [*model.parameters()][-3:]]
    befores = []
    for param in model.parameters():
        param.grad = kind(param) if id(param) in odd else torch.ones_like(param)
        befores.append(param.grad.detach().to_dense().clone())
    assert not step(model).skipped
    for param, before, direction in zip(model.parameters(), befores, directions, strict=True):
        torch.testing.assert_close(param.grad.detach().to_dense(), before + direction, rtol=1e-12, atol=1e-12)


@each_kind
@pytest.mark.parametrize("name", ["linear", "mgda"])
def test_a_scaler_is_told_of_a_skipped_step_through_it(name: str, kind: Kind) -> None:
    model = MultiHead(2)
    for param in model.parameters():
        param.grad = kind(param)
    losses = model.losses()
    scaler = torch.amp.GradScaler("cpu")
    record = mtopt.backward([losses[0], losses[1] * torch.inf], model, mtopt.create_combiner(name), scaler=scaler)
    assert record.skipped
    assert all(bool(param.grad.isnan().all()) for param in model.parameters())
    scaler.step(torch.optim.SGD(model.parameters(), lr=1.0))
    assert all(bool(param.isfinite().all()) for param in model.parameters())


def test_a_sparse_gradient_stays_sparse_where_autograd_adds_a_sparse_one() -> None:
    table = nn.Embedding(6, 2, sparse=True)
    losses = [table(torch.tensor([1])).sum(), table(torch.tensor([4])).square().sum()]
    table.weight.grad = torch.eye(6, 2).to_sparse(1)
    before = table.weight.grad.to_dense()
    mtopt.backward(losses, table, mtopt.create_combiner("linear"))
    assert table.weight.grad.is_sparse
    added = table.weight.grad.to_dense() - before
    assert added.abs().sum(1).nonzero()[:, 0].tolist() == [1, 4]


@pytest.mark.parametrize("kind", [expanded, overlapping, inferred, sparse], ids=lambda kind: kind.__name__)
def test_a_probe_puts_it_back(kind: Kind) -> None:
    """GeN steps with ``.grad`` as it is, and back."""
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    gradients = []
    for param in layer.parameters():
        param.grad = kind(param)
        gradients.append(param.grad.to_dense().clone())
    before = [param.detach().clone() for param in layer.parameters()]
    inputs = torch.ones(1, 3)
    mtopt.GeN(optimizer).step(lambda: layer(inputs).square().sum())
    for param, at, gradient in zip(layer.parameters(), before, gradients, strict=True):
        assert torch.equal(param.detach(), at)
        assert torch.equal(param.grad.to_dense(), gradient)
