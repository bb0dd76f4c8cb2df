"""Finite gradients whose direction is not: every plan writes finite numbers alone, and else the rule goes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from mtopt import NonFiniteError
from tests.autograd.test_skipping import same_state

HUGE = 2e38  # more than half of float32's largest number


class Slopes(nn.Module):
    """Losses ``g_k . x`` with given gradients."""

    def __init__(self, rows: torch.Tensor) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(rows.shape[1], dtype=rows.dtype))
        self.register_buffer("rows", rows)

    def losses(self) -> list[torch.Tensor]:
        return [(row * self.x).sum() for row in self.rows]  # type: ignore[union-attr]


def two_huge() -> Slopes:
    return Slopes(torch.tensor([[HUGE, 0.0], [HUGE, 1.0]]))


def three_in_float16() -> Slopes:
    return Slopes(torch.full((3, 2), 3e4, dtype=torch.float16))


def sums() -> list[tuple[str, dict[str, Any], Callable[[Slopes], Any]]]:
    """Rules that add gradients up, by each way that a step is made."""
    whole: Callable[[Slopes], Any] = Slopes.losses
    return [
        ("pcgrad", {}, whole),
        ("gradvac", {}, whole),
        ("linear", {}, whole),
        ("graddrop", {}, whole),
        ("pcgrad", {"private": "combined"}, whole),
        ("linear", {"private": "combined"}, whole),
        ("pcgrad", {"plan": "batched"}, whole),
        ("pcgrad", {"store": "recompute"}, whole),
        ("pcgrad", {"store": torch.bfloat16}, whole),
        ("pcgrad", {}, lambda model: [lambda k=k: model.losses()[k] for k in range(len(model.rows))]),  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("problem", [two_huge, three_in_float16])
@pytest.mark.parametrize(("name", "options", "given"), sums())
def test_a_direction_that_overflows_skips_the_step(  # type: ignore[no-untyped-def]
    name: str, options: dict[str, Any], given, problem: Callable[[], Slopes], strict: bool
) -> None:
    model = problem()
    rule = mtopt.create_combiner(name, **({"reduction": "sum"} if name in ("linear", "pcgrad") else {}))
    state = rule.state_dict()
    if strict:
        with pytest.raises(NonFiniteError, match="non-finite"):
            mtopt.backward(given(model), model, rule, strict=True, **options)
    else:
        record = mtopt.backward(given(model), model, rule, **options)
        assert record.skipped
        assert record.reason is not None
        assert "non-finite" in record.reason
    assert model.x.grad is None
    assert same_state(rule.state_dict(), state)


@pytest.mark.parametrize("name", ["pcgrad", "linear", "graddrop"])
def test_what_is_written_is_finite_after_it_is_added(name: str) -> None:
    model = Slopes(torch.tensor([[0.4 * HUGE, 0.0], [0.4 * HUGE, 1.0]]))
    rule = mtopt.create_combiner(name, **({} if name == "graddrop" else {"reduction": "sum"}))
    first = mtopt.backward(model.losses(), model, rule)
    assert not first.skipped
    assert model.x.grad is not None
    for _ in range(2):  # 1.6e38 for each step, of 3.4e38
        held, state = model.x.grad.clone(), rule.state_dict()
        record = mtopt.backward(model.losses(), model, rule)
    assert record.skipped
    assert record.reason is not None
    assert "what .grad holds" in record.reason
    assert torch.equal(model.x.grad, held)
    assert same_state(rule.state_dict(), state)


@pytest.mark.parametrize(
    ("name", "options"), [("gradvac", {}), ("pcgrad", {}), ("db_mtl", {"transform": None, "beta": 0.01})]
)
def test_the_rule_is_as_it_was_before_the_step(name: str, options: dict[str, Any]) -> None:
    """States of K numbers, of vectors as long as the gradients, and of a generator."""
    rule = mtopt.create_combiner(name, **options)
    model = Slopes(torch.tensor([[1.0, 0.0], [0.5, 1.0]]))
    assert not mtopt.backward(model.losses(), model, rule).skipped
    held, state = model.x.grad, rule.state_dict()
    assert held is not None
    held = held.clone()
    model.rows = torch.tensor([[HUGE, 0.0], [HUGE, 1.0]])
    assert mtopt.backward(model.losses(), model, rule).skipped
    assert torch.equal(model.x.grad, held)  # type: ignore[arg-type]
    assert same_state(rule.state_dict(), state)


def test_an_infinite_gradient_of_a_rule_on_losses() -> None:
    """No row is looked at there, but what is written is."""
    model, rule = Slopes(torch.eye(2)), mtopt.create_combiner("uw")
    first, second = model.losses()
    state = rule.state_dict()
    record = mtopt.backward([first * 1e38 * 1e38, second], model, rule)  # zero times infinity is no loss: the slope is
    assert record.reason == "non-finite gradient of the weighted losses"
    assert model.x.grad is None
    assert same_state(rule.state_dict(), state)


def test_a_scaler_is_told_and_lowers_its_factor() -> None:
    model = two_huge()
    model.rows = model.rows / 4  # type: ignore[operator,assignment]
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    record = mtopt.backward(model.losses(), model, mtopt.create_combiner("pcgrad"), scaler=scaler)
    assert record.skipped
    scaler.step(optimizer)
    scaler.update()
    assert float(model.x.detach().abs().sum()) == 0.0
    assert scaler.get_scale() == 2.0


def test_accumulated_gradients_and_samples_and_draws() -> None:
    rows = torch.tensor([[HUGE, 0.0], [HUGE, 1.0]])
    model = Slopes(rows)
    accumulator = mtopt.JacobianAccumulator(model.parameters(), 2)
    for k, loss in enumerate(model.losses()):
        accumulator.add(k, loss)
    assert accumulator.combine(mtopt.create_combiner("pcgrad")).skipped
    assert model.x.grad is None

    layer = nn.Linear(2, 1, bias=False)
    with mtopt.per_instance(layer) as instances:
        record = instances.backward(layer(rows)[:, 0], mtopt.create_combiner("pcgrad"))
    assert record.skipped
    assert layer.weight.grad is None

    rule = mtopt.create_combiner("modo")
    good = Slopes(rows / HUGE)
    mtopt.backward([good.losses() for _ in range(3)], good, rule)
    assert good.x.grad is not None
    good.x.grad.fill_(1.5 * HUGE)
    held, state = good.x.grad.clone(), rule.state_dict()
    good.rows = rows
    record = mtopt.backward([good.losses() for _ in range(3)], good, rule)
    assert record.skipped
    assert torch.equal(good.x.grad, held)
    assert same_state(rule.state_dict(), state)


def test_features_and_streamed_rows() -> None:
    trunk, heads = nn.Linear(1, 2, bias=False), torch.tensor([[HUGE, 0.0], [HUGE, 1.0]])
    features = trunk(torch.ones(1))
    losses = [(row * features).sum() for row in heads]
    record = mtopt.backward(
        losses, trunk, mtopt.create_combiner("pcgrad"), features=features, plan="features", private="own"
    )
    assert record.skipped
    assert trunk.weight.grad is None

    model = Slopes(torch.ones(40, 2, dtype=torch.float16))
    model.x.grad = torch.full((2,), 65504.0, dtype=torch.float16)  # the largest number, and 28 on top of it
    record = mtopt.backward(model.losses(), model, mtopt.create_combiner("ngdiff"), store="recompute")
    assert "added up as they come" in record.plan
    assert record.skipped
    assert bool((model.x.grad == 65504.0).all())


def test_a_call_on_a_jacobian_names_the_rule() -> None:
    for dtype, size, count in ((torch.float32, HUGE, 2), (torch.float16, 3e4, 3)):
        jacobian = torch.full((count, 2), size, dtype=dtype)
        for name in ("pcgrad", "graddrop"):
            with pytest.raises(NonFiniteError, match=r"the direction of (PCGrad|GradDrop)\(\) overflows torch.float"):
                mtopt.create_combiner(name)(jacobian)
    shorter = mtopt.create_combiner("pcgrad", reduction="mean")(torch.full((2, 2), HUGE))
    torch.testing.assert_close(shorter, torch.full((2,), HUGE))


def test_a_good_direction_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms and weights prove it finite: no pass over it."""
    import mtopt.autograd._step as writing

    looked: list[int] = []
    original = writing.are_finite

    def counted(tensors: Any) -> bool:
        looked.append(len(tensors))
        return original(tensors)

    monkeypatch.setattr(writing, "are_finite", counted)
    model = Slopes(torch.eye(2))
    mtopt.backward(model.losses(), model, mtopt.create_combiner("pcgrad"))
    assert looked == [0]
