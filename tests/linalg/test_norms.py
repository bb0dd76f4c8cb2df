"""Norms and sums over many entries: exact whatever their number, in every place that takes one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import mtopt
from mtopt.combiners.sinkhorn import sinkhorn_normalized
from mtopt.linalg import norm_of
from mtopt.training._precision import Precision

MANY = 1 << 24
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-10, torch.bfloat16: 1e-10, torch.float16: 1e-10}
every_dtype = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


@every_dtype
@pytest.mark.parametrize("count", [1, 1_000, 65_536, 65_537, 3_000_000])
def test_equal_entries_have_their_root_of_the_count(count: int, dtype: torch.dtype) -> None:
    """The worst case of a sum in its own precision: every addition is rounded in the same direction."""
    entries = torch.full((count,), 0.1, dtype=dtype)
    assert norm_of([entries]) == pytest.approx(float(entries[0]) * math.sqrt(count), rel=TOLERANCE[dtype])


def test_a_sum_of_very_many_squares_loses_nothing() -> None:
    entries = torch.full((MANY,), 0.1)
    assert norm_of([entries]) == pytest.approx(float(entries[0]) * math.sqrt(MANY), rel=1e-10)
    assert abs(float(entries.norm()) / norm_of([entries]) - 1.0) > 1e-4  # what it stands in place of


def test_tensors_of_all_kinds_count_together() -> None:
    tensors = [
        torch.full((3, 4), 2.0),
        torch.full((70_000,), 0.5, dtype=torch.bfloat16).reshape(700, 100).T,
        torch.zeros(0),
        torch.tensor(3.0, dtype=torch.float64),
        torch.ones(1).expand(5),
        torch.tensor([3.0 + 4.0j]),
        torch.tensor([[0.0, 2.0], [0.0, 0.0]]).to_sparse(),
        torch.ones(2, requires_grad=True),
    ]
    squares = 12 * 4.0 + 70_000 * 0.25 + 9.0 + 5.0 + 25.0 + 4.0 + 2.0
    assert norm_of(tensors) == pytest.approx(math.sqrt(squares), rel=1e-14)
    assert norm_of(iter(tensors)) == norm_of(tensors)
    assert norm_of([]) == 0.0
    assert norm_of([torch.zeros(4)]) == 0.0


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        *[(1e-40, torch.float32), (3e38, torch.float32), (6e-8, torch.float16), (6e4, torch.float16)],
        *[(1e-300, torch.float64), (1e-160, torch.float64), (1e307, torch.float64), (1e160, torch.float64)],
    ],
)
def test_no_square_over_or_underflows(size: float, dtype: torch.dtype) -> None:
    entries = torch.full((100,), size, dtype=dtype)
    assert norm_of([entries, torch.zeros(3, dtype=dtype)]) == pytest.approx(10.0 * float(entries[0]), rel=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_passes(bad: float) -> None:
    for others in ([torch.ones(3)], [torch.full((70_000,), 1e300, dtype=torch.float64)]):
        for tensors in ([torch.tensor([1.0, bad]), *others], [*others, torch.tensor([bad])]):
            found = norm_of(tensors)
            assert math.isnan(found) if math.isnan(bad) else found == math.inf


# -- the places ----------------------------------------------------------------------------------------------------


def test_a_clipped_direction_has_the_limit_as_its_length() -> None:
    """A float32 sum says 1e-3 too little here, and clips too little by as much."""
    layer = nn.Linear(1 << 11, 1 << 11, bias=False)
    layer.weight.grad = torch.full_like(layer.weight, 0.1)
    true = float(layer.weight.grad[0, 0]) * math.sqrt(layer.weight.numel())
    precision = Precision(None, true * 1e-3, torch.device("cpu"))
    assert precision.finish_gradients(torch.optim.SGD(layer.parameters(), lr=1.0)) is None
    assert norm_of([layer.weight.grad]) == pytest.approx(true * 1e-3, rel=1e-7)


@pytest.mark.parametrize(("limit", "length"), [(1e-12, 1e-10), (1e25, 1e30), (1.0, 1e-3)])
def test_clipping_has_no_unit(limit: float, length: float) -> None:
    layer = nn.Linear(5, 5, bias=False)
    layer.weight.grad = torch.full_like(layer.weight, length / 5.0)
    precision = Precision(None, limit, torch.device("cpu"))
    assert precision.finish_gradients(torch.optim.SGD(layer.parameters(), lr=1.0)) is None
    assert norm_of([layer.weight.grad]) == pytest.approx(min(limit, length), rel=1e-6, abs=0.0)


@pytest.mark.parametrize("shape", [(3_000_000,), (1, 3_000_000), (3_000_000, 1), (2, 1_500_000), (1_500_000, 2)])
def test_multi_normalised_gradients_have_their_norm(shape: tuple[int, ...]) -> None:
    found = sinkhorn_normalized(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    assert norm_of([found]) == pytest.approx(math.sqrt(3_000_000), rel=1e-7)


@pytest.mark.parametrize("name", ["mgda", "ngdiff"])
def test_one_loss_a_sample_trains_large_layers(name: str) -> None:
    """||d||² of 8 million entries is compared with w'Gw: a sum in float32 differs by more than their rounding."""
    torch.manual_seed(0)
    model = nn.Linear(2048, 4096, bias=False)
    inputs = torch.randn(4, 2048)
    with mtopt.per_instance(model) as instances:
        losses = model(inputs).square().mean(1)
    record = instances.backward(losses, mtopt.create_combiner(name))
    assert not record.skipped
    assert model.weight.grad is not None
    rows = [torch.outer(2.0 * (model.weight.detach() @ x) / 4096, x) for x in inputs]
    expected = sum(w * row for w, row in zip(record.weights.values(), rows, strict=True))
    torch.testing.assert_close(model.weight.grad, expected, rtol=1e-4, atol=1e-7)
