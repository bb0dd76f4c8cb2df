"""Rows that are moved to one matrix as they come: the same step, and no holes in the heap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from mtopt.linalg import _row_storage, store_in_matrix
from tests.autograd.helpers import MultiHead, Reference, close, flat_gradient
from tests.autograd.models import MODELS, build

RULES = ("ngdiff", "mgda", "upgrad", "graddrop", "pcgrad")


@pytest.fixture
def packing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Moves all tensors below a size, however few there are."""

    def below(size: int) -> None:
        monkeypatch.setattr(_row_storage, "LITTLE", 0)
        monkeypatch.setattr("mtopt.autograd.plans._kept_rows.STAYS_APART", size)

    return below


def moved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many parameters are in the matrix, a number for each step."""
    seen: list[int] = []

    def watched(*args: Any, **options: Any) -> Any:
        rows, laid = store_in_matrix(*args, **options)
        seen.append(0 if laid is None else len(laid.columns))
        return rows, laid

    monkeypatch.setattr("mtopt.autograd.plans._kept_rows.store_in_matrix", watched)
    return seen


@pytest.mark.parametrize("below", [10, 1 << 18], ids=["some", "all"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", MODELS)
def test_the_direction_is_the_one_computed_by_hand(
    name: str, rule: str, below: int, packing: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(name)
    params = list(model.parameters())
    wanted = Reference.of(lambda: list(model.losses().values()), params)
    packing(below)
    seen = moved(monkeypatch)
    record = mtopt.backward(model.losses(), model, mtopt.create_combiner(rule))
    assert not record.skipped
    assert seen[0] > 0
    if name != "mlp":  # where some parameters are reached by two of three losses, they have a rule of their own
        close(flat_gradient(params), wanted.direction(mtopt.create_combiner(rule)))
    unpacked = [param.grad for param in params]
    monkeypatch.setattr(_row_storage, "LITTLE", 1 << 40)
    model.zero_grad()
    mtopt.backward(model.losses(), model, mtopt.create_combiner(rule))
    for param, before in zip(params, unpacked, strict=True):
        assert param.grad is not None
        assert before is not None
        close(before, param.grad)
        assert before.untyped_storage().nbytes() == before.numel() * before.element_size()


@pytest.mark.parametrize("private", ["own", "weighted", "combined"])
@pytest.mark.parametrize("order", ["heads first", "heads last", "a head between"])
def test_where_the_heads_stand_does_not_matter(order: str, private: Any, packing: Callable[[int], None]) -> None:
    model = MultiHead(3)
    trunk, heads = list(model.trunk.parameters()), list(model.heads.parameters())
    params = {
        "heads first": [*heads, *trunk],
        "heads last": [*trunk, *heads],
        "a head between": [*trunk[:2], *heads[:2], *trunk[2:], *heads[2:]],
    }[order]
    rule = mtopt.create_combiner("mgda")
    mtopt.backward(model.losses(), params, rule, private=private)
    wanted = flat_gradient(params)
    model.zero_grad()
    packing(1 << 18)
    mtopt.backward(model.losses(), params, rule, private=private)
    close(flat_gradient(params), wanted)


@pytest.mark.parametrize("rule", ["mgda", "graddrop"])
def test_the_factor_of_a_scaler_is_seen_through(rule: str, packing: Callable[[int], None]) -> None:
    plain, scaled = MultiHead(2), MultiHead(2)
    packing(1 << 18)
    first = mtopt.backward(plain.losses(), plain, mtopt.create_combiner(rule))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    second = mtopt.backward(scaled.losses(), scaled, mtopt.create_combiner(rule), scaler=scaler)
    close(flat_gradient(list(scaled.parameters())) / 1024, flat_gradient(list(plain.parameters())))
    assert second.norms == pytest.approx(first.norms)


@pytest.mark.parametrize("rule", ["mgda", "graddrop"])
def test_losses_on_batches_of_their_own(rule: str, packing: Callable[[int], None]) -> None:
    model = MultiHead(2)
    params = list(model.parameters())
    mtopt.backward(model.losses(), params, mtopt.create_combiner(rule))
    wanted = flat_gradient(params)
    model.zero_grad()
    packing(1 << 18)
    losses = {f"loss {k}": lambda k=k: model.loss(k, model.features()) for k in range(2)}
    mtopt.backward(losses, params, mtopt.create_combiner(rule))
    close(flat_gradient(params), wanted)


def test_parameters_of_several_dtypes_and_layouts(packing: Callable[[int], None]) -> None:
    """One dtype lies in the matrix, and what is not in order stays where it is."""

    def losses(turned: nn.Parameter, wide: nn.Parameter, short: nn.Parameter) -> list[torch.Tensor]:
        each = [turned.t().square().sum(), (wide.float() * 3).sum(), (short.float() - 1).square().sum()]
        return [each[0] + each[1] + each[2], each[0] * each[1] + each[2]]

    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(3, 4, generator=generator).t(), torch.randn(5, generator=generator).double()]
    params = [nn.Parameter(value) for value in (*values, torch.randn(6, generator=generator))]
    mtopt.backward(losses(*params), params, mtopt.create_combiner("mgda"))
    wanted = [param.grad for param in params]
    for param in params:
        param.grad = None
    packing(1 << 18)
    mtopt.backward(losses(*params), params, mtopt.create_combiner("mgda"))
    for param, other in zip(params, wanted, strict=True):
        assert param.grad is not None
        assert other is not None
        assert param.grad.dtype == other.dtype
        close(param.grad, other, 1e-6)


def test_a_row_that_is_not_finite_is_skipped(packing: Callable[[int], None]) -> None:
    model = MultiHead(2)
    packing(1 << 18)
    losses = model.losses()
    losses[1] = losses[1] * float("inf")
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda"))
    assert record.skipped
    assert "loss_1" in str(record.reason)
    assert all(param.grad is None for param in model.parameters())


def test_what_no_rule_needs_together_stays_where_it_is() -> None:
    """A few small tensors, or big ones, are not copied."""
    params = [torch.zeros(10), torch.zeros(_row_storage.STAYS_APART)]
    rows = [[torch.ones(10), torch.ones(_row_storage.STAYS_APART)] for _ in range(2)]
    kept, laid = store_in_matrix(iter(rows), params, 2, below=_row_storage.STAYS_APART)
    assert laid is None
    assert kept == rows
    many = [torch.zeros(100_000) for _ in range(8)]
    rows = [[torch.full((100_000,), float(k)) for _ in many] for k in range(2)]
    kept, laid = store_in_matrix(iter(rows), many, 2, below=_row_storage.STAYS_APART)
    assert laid is not None
    assert laid.matrix.shape == (2, 800_000)
    assert kept == [[None] * 8] * 2
    assert torch.equal(laid.gradient(1, 3, many[3]), torch.ones(100_000))
