"""What a step by layers costs, and when it is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import mtopt
from benchmarks.speed._memory import peak_tensor_bytes
from mtopt.autograd import _matrix_gradients
from mtopt.autograd._matrix_gradients import MatrixCosts, MatrixGradients, Way
from mtopt.autograd._matrix_uses import MatrixUse
from mtopt.autograd._tied_gradients import costs_of, gradients_by_factors
from tests.autograd.helpers import MultiHead, close, flat_gradient
from tests.autograd.test_layers import WAYS, matrices, rows_of


class Wide(nn.Module):
    """Two large layers under three losses on few rows: what the plan is for."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 512))
            self.inputs = torch.randn(rows, 1024)

    def losses(self) -> list[torch.Tensor]:
        outputs = self.body(self.inputs)
        return [outputs.square().mean(), outputs.exp().mean(), F.softplus(outputs).mean()]


@pytest.mark.parametrize("given", ["callable", "tensors"])
def test_it_is_taken_by_itself_where_that_is_cheaper(given: str) -> None:
    model = Wide(8)
    expected = rows_of(model.losses, model, "mgda")
    losses = model.losses if given == "callable" else model.losses()
    record = mtopt.backward(losses, model, mtopt.MGDA())
    assert record.plan.startswith("layer by layer, ")
    assert matrices(record) == 2
    close(flat_gradient(list(model.parameters())), expected, 1e-5)
    for other, rule in ((MultiHead(3), mtopt.MGDA()), (model, mtopt.GradDrop())):
        record = mtopt.backward(other.losses(), other, rule)
        assert record.plan == "one backward pass per loss"


@pytest.mark.parametrize("rule", ["mgda", "ngdiff"])
def test_no_gradients_are_kept_where_they_are_to_be_recomputed(rule: str) -> None:
    model = Wide(64)
    expected = rows_of(model.losses, model, rule)
    records: list[mtopt.StepRecord] = []
    losses = model.losses()
    whole = sum(param.numel() for param in model.parameters()) * 4
    peak = peak_tensor_bytes(
        lambda: records.append(mtopt.backward(losses, model, mtopt.create_combiner(rule), store="recompute"))
    )
    assert records[0].plan.startswith("layer by layer, ")
    assert "no gradients of a matrix are kept: store='recompute'" in records[0].plan
    assert records[0].backwards == 3
    assert peak <= 1.35 * whole  # the direction, output gradients and inner products; two gradients by rounds
    close(flat_gradient(list(model.parameters())), expected, 1e-5)


def test_recomputing_goes_by_layers_up_to_the_memory_of_rounds() -> None:
    model, count = Wide(400), 8
    whole, largest = 4 * sum(param.numel() for param in model.parameters()), 4 * 1024**2
    assert count * largest > 2 * whole  # so a round of the first layer takes more than two gradients

    def losses() -> list[torch.Tensor]:
        outputs = model.body(model.inputs)
        return [F.softplus(outputs * (k + 1) - k).mean() for k in range(count)]

    expected = rows_of(losses, model, "mgda")
    records: list[mtopt.StepRecord] = []
    given = losses()
    peak = peak_tensor_bytes(lambda: records.append(mtopt.backward(given, model, mtopt.MGDA(), store="recompute")))
    assert records[0].plan.startswith("layer by layer, ")
    assert records[0].backwards == count
    assert peak <= 1.05 * (count * largest + whole)  # what a round takes, and the direction
    close(flat_gradient(list(model.parameters())), expected, 1e-5)


def test_rounds_recompute_where_output_gradients_are_no_smaller_than_two_gradients() -> None:
    model = Wide(1500)
    expected = rows_of(model.losses, model, "mgda")
    record = mtopt.backward(model.losses(), model, mtopt.MGDA(), store="recompute")
    assert record.plan.startswith("inner products block by block")
    close(flat_gradient(list(model.parameters())), expected, 1e-5)


def test_few_rows_go_in_one_batched_pass() -> None:
    record = mtopt.backward((model := Wide(8)).losses, model, mtopt.MGDA(), plan="layers")
    assert record.plan.endswith("; in one batched pass")
    record = mtopt.backward((model := Wide(400)).losses, model, mtopt.MGDA(), plan="layers")
    assert "batched" not in record.plan


def multiplications(work: Callable[[], Any]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("rows", [8, 128, 640])
@pytest.mark.parametrize("count", [2, 8])
def test_the_costs_are_those_that_are_counted(rows: int, count: int) -> None:
    """Without the traffic and what strips take longer, which the model adds as multiplications."""
    torch.manual_seed(0)
    weight = torch.randn(192, 256)
    use = MatrixUse((None, 0), torch.randn(rows, 256), 256, 192)  # type: ignore[arg-type]
    cotangents = [list(torch.randn(count, rows, 192).unbind())]
    weights = torch.randn(count, dtype=torch.float64)
    costs = MatrixCosts.of([use], count)
    numbers = {
        "products": _matrix_gradients.TOUCHED_BY_PRODUCTS * count * rows * 192,
        "dropped": _matrix_gradients.TOUCHED_BY_DROPPED * count * weight.numel(),
    }
    for way in WAYS:
        made = MatrixGradients.of([use], cotangents, way, torch.float32)
        found = multiplications(lambda: (made.gramian(), made.combined(weights, weight)))  # noqa: B023
        traffic = _matrix_gradients.TRAFFIC * (numbers[way] + weight.numel())
        pairs = rows * (rows + max(64, rows / 8)) / 2 if rows > 64 else rows**2
        longer = pairs * (256 + count * 192) * (_matrix_gradients.STRIPPED - 1) if way == "products" else 0
        assert costs[way] - traffic - longer == pytest.approx(found, rel=0.12)


def test_a_tables_rows_and_tied_weights_cost_what_is_counted() -> None:
    torch.manual_seed(0)
    count, places, positions = 4, 96, 64
    weight = torch.randn(500, 128)
    table = MatrixUse((None, 0), torch.randint(500, (places,)), 500, 128, transposed=True)  # type: ignore[arg-type]
    layer = MatrixUse((None, 1), torch.randn(positions, 128), 128, 500)  # type: ignore[arg-type]
    cotangents = [list(torch.randn(count, places, 128).unbind()), list(torch.randn(count, positions, 500).unbind())]
    weights = torch.randn(count, dtype=torch.float64)
    for uses in ([table], [table, layer]):
        given = [torch.stack(found) for found in cotangents[: len(uses)]]
        expected = torch.zeros(count, 500, 128).index_add_(1, table.saved, given[0])
        if len(uses) == 2:
            expected += given[1].mT @ layer.saved
        for way in WAYS if len(uses) == 2 else WAYS[:1]:
            made = gradients_by_factors(uses, cotangents[: len(uses)], way, torch.float32)
            close(made.gramian(), expected.double().flatten(1) @ expected.double().flatten(1).T, 1e-5)
            close(made.combined(weights, weight), torch.einsum("k,kvm->vm", weights.float(), expected), 1e-5)
            found = multiplications(lambda: (made.gramian(), made.combined(weights, weight)))  # noqa: B023
            # traffic, which the model adds as multiplications, leaves it above
            assert found <= 1.05 * costs_of(uses, count)[way]


def test_few_rows_go_by_products_and_many_are_kept() -> None:
    def cheapest(rows: int, width: int, height: int, count: int) -> Way:
        use = MatrixUse((None, 0), torch.empty(rows, width), width, height)  # type: ignore[arg-type]
        return MatrixCosts.of([use], count).cheapest()

    assert [cheapest(rows, 1024, 1024, 8) for rows in (16, 128, 512, 4096)] == ["products"] * 3 + ["kept"]
    assert cheapest(768, 192, 192, 8) == "kept"
    assert cheapest(128, 64, 64, 40) == "dropped"
    assert cheapest(8192, 4096, 4096, 2) == "kept"
