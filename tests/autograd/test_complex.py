"""Complex parameters are trained as the pairs of reals that they are: beside a model written in reals alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from tests.autograd.helpers import every_rule
from tests.autograd.test_existing_gradients import STEPS


class InReals(nn.Module):
    """A complex layer whose numbers are pairs of reals, and so are its inputs and outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 2, dtype=torch.float64))
        self.bias = nn.Parameter(torch.empty(outputs, 2, dtype=torch.float64))

    def forward(self, pairs: torch.Tensor) -> torch.Tensor:
        (u, v), (a, b) = pairs.unbind(-1), self.weight.unbind(-1)
        return torch.stack([u @ a.T - v @ b.T, u @ b.T + v @ a.T], -1) + self.bias

    def squash(self, pairs: torch.Tensor) -> torch.Tensor:
        return pairs / (1.0 + pairs.square().sum(-1, keepdim=True))

    def part(self, pairs: torch.Tensor) -> torch.Tensor:
        return pairs.flatten(1)


class InComplex(InReals):
    """The same layer in complex numbers."""

    def __init__(self, inputs: int, outputs: int) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.empty(outputs, inputs, dtype=torch.complex128))
        self.bias = nn.Parameter(torch.empty(outputs, dtype=torch.complex128))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers @ self.weight.T + self.bias

    def squash(self, numbers: torch.Tensor) -> torch.Tensor:
        return numbers / (1.0 + (numbers * numbers.conj()).real)

    def part(self, numbers: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(numbers).flatten(1)


class Net(nn.Module):
    """A trunk and heads, and real numbers in between."""

    def __init__(self, kind: type[InReals], heads: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.trunk = nn.ModuleList([kind(4, 6), kind(6, 5)])
        self.gain = nn.Parameter(torch.empty((5, 1) if kind is InReals else (5,), dtype=torch.float64))
        self.heads = nn.ModuleList(nn.Sequential(kind(5, 1), Parts(kind)) for _ in range(heads))
        for param in self.parameters():
            values = 0.5 * torch.randn(as_pairs(param.detach()).shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                as_pairs(param.detach()).copy_(values)
        self.inputs = torch.randn(9, 4, 2, generator=generator, dtype=torch.float64)
        self.targets = torch.randn(9, heads, generator=generator, dtype=torch.float64)
        if kind is InComplex:
            self.inputs = torch.view_as_complex(self.inputs)

    def features(self) -> torch.Tensor:
        first, second = self.trunk
        return second.squash(second(first.squash(first(self.inputs)))) * self.gain

    def loss(self, k: int, features: torch.Tensor) -> torch.Tensor:
        return (k + 1) * (self.heads[k](features).sum(1) - self.targets[:, k]).square().mean() + 0.1

    def losses(self) -> list[torch.Tensor]:
        features = self.features()
        return [self.loss(k, features) for k in range(len(self.heads))]


class Parts(nn.Module):
    """The real and imaginary parts, side by side."""

    def __init__(self, kind: type[InReals]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.kind.part(self, values)  # type: ignore[arg-type]


def as_pairs(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def require_alike(step: Callable[[Any], Any], steps: int = 2) -> None:
    models = [Net(InReals), Net(InComplex)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01) for model in models]
    for _ in range(steps):
        records = []
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            records.append(step(model))
        for real, number in zip(*(model.parameters() for model in models), strict=True):
            if real.grad is None:
                assert number.grad is None
                continue
            assert number.grad.dtype == number.dtype
            found = as_pairs(number.grad).reshape(real.grad.shape)
            torch.testing.assert_close(found, real.grad, rtol=1e-7, atol=1e-9)
        for optimizer in optimizers:
            optimizer.step()
        of_reals, of_numbers = records
        assert not of_numbers.skipped
        assert of_reals.losses == pytest.approx(of_numbers.losses)
        if of_reals.norms is not None:
            assert of_numbers.norms == pytest.approx(of_reals.norms)
            assert of_numbers.weights == (of_reals.weights and pytest.approx(of_reals.weights))


@pytest.mark.parametrize("name", every_rule())
def test_every_rule(name: str) -> None:
    rules = {InReals: mtopt.create_combiner(name), InComplex: mtopt.create_combiner(name)}
    count = 2 if name in ("blur", "gru", "hamu", "sago") else 3  # one loss to retain and one to forget
    require_alike(lambda model: mtopt.backward(model.losses()[:count], model, rules[model.heads[0][1].kind]))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_every_plan(step: Callable[[Any], Any]) -> None:
    require_alike(step)


@pytest.mark.parametrize("name", ["mgda", "ngdiff", "graddrop", "linear"])
def test_losses_that_reach_not_everything(name: str) -> None:
    for private in ("own", "weighted", "combined"):
        if name != "graddrop" or private != "weighted":
            require_alike(
                lambda m, p=private: mtopt.backward(  # type: ignore[misc]
                    [*m.losses()[:2], m.gain.square().sum()], m, mtopt.create_combiner(name), private=p
                )
            )


@pytest.mark.parametrize("plan", ["auto", "batched", "features"])
def test_complex_features(plan: str) -> None:
    def step(model: Net) -> Any:
        trunk = model.features()
        losses = [model.loss(k, trunk) for k in range(3)]
        return mtopt.backward(losses, model, mtopt.create_combiner("mgda"), features=trunk, plan=plan)  # type: ignore[arg-type]

    require_alike(step)


@pytest.mark.parametrize("store", [torch.bfloat16, torch.float16])
def test_rows_in_16_bits(store: torch.dtype) -> None:
    require_alike(lambda model: mtopt.backward(model.losses(), model, mtopt.create_combiner("mgda"), store=store), 1)


def test_inner_products_hold_the_imaginary_parts() -> None:
    param = nn.Parameter(torch.tensor([1.0 + 0.0j]))
    record = mtopt.backward(
        [param.real.sum(), param.imag.sum(), param.real.sum() + 0.0 * param.imag.sum()],
        [param],
        mtopt.create_combiner("mgda"),
    )
    assert record.cosines is not None
    assert record.cosines.tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]


@pytest.mark.parametrize("name", ["linear", "mgda", "graddrop"])
def test_an_imaginary_part_that_is_not_finite_skips_the_step(name: str) -> None:
    param = nn.Parameter(torch.tensor([0.0 + 1.0j]))
    losses = [param.real.sum(), (param.imag - 1.0).square().sum().sqrt()]
    assert mtopt.backward(losses, [param], mtopt.create_combiner(name)).skipped
    assert param.grad is None
