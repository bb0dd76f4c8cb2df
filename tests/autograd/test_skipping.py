"""NaN and infinity: the step is skipped, or raises; with a GradScaler, the scaler learns of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from mtopt import NonFiniteError
from tests.autograd.helpers import FIVE, GRADIENT_RULES, MultiHead, close, flat_gradient


def same_state(first: Any, second: Any) -> bool:
    """Equality of nested states that hold tensors."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same_state(first[key], second[key]) for key in first)
    return bool(first == second)


def warmed_up(name: str, model: MultiHead) -> mtopt.Combiner:
    """A rule after one good step, with something in its state and in ``.grad``."""
    rule = mtopt.create_combiner(name)
    mtopt.backward(model.losses(), model, rule)
    return rule


class InfiniteGradient(torch.autograd.Function):
    """The identity, with an infinite gradient."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient * torch.inf


def nan_loss(loss: torch.Tensor) -> torch.Tensor:
    return loss * torch.nan


def infinite_loss(loss: torch.Tensor) -> torch.Tensor:
    return loss + torch.inf  # its gradient is finite


def infinite_gradient(loss: torch.Tensor) -> torch.Tensor:
    return InfiniteGradient.apply(loss)  # its value is finite


# Rules on losses see no rows, and cannot say whose gradient is infinite.
CASES: list[tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = [
    *((name, spoilt) for name in FIVE for spoilt in (nan_loss, infinite_loss)),
    *((name, infinite_gradient) for name in GRADIENT_RULES),
]


def spoilt_losses(model: MultiHead, spoilt: Callable[[torch.Tensor], torch.Tensor], how: str) -> dict[str, Any]:
    if how == "callables":
        return {"good": lambda: model.losses()[0], "bad": lambda: spoilt(model.losses()[1])}
    good, bad = model.losses()
    return {"good": good, "bad": spoilt(bad)}


@pytest.mark.parametrize("how", ["tensors", "callables"])
@pytest.mark.parametrize(("name", "spoilt"), CASES)
def test_the_step_is_skipped_and_nothing_is_touched(name: str, spoilt, how: str) -> None:  # type: ignore[no-untyped-def]
    model = MultiHead(2)
    params = list(model.parameters())
    rule = warmed_up(name, model)
    gradients, state = flat_gradient(params), rule.state_dict()
    record = mtopt.backward(spoilt_losses(model, spoilt, how), params, rule)
    assert record.skipped
    reason, _, hint = str(record.reason).partition("; ")
    assert reason == f"non-finite {'gradient' if spoilt is infinite_gradient else 'loss'}: bad"
    assert ("absent='nan'" in hint) == (spoilt is nan_loss)
    assert record.weights is None
    assert list(record.losses) == ["good", "bad"]
    assert torch.equal(flat_gradient(params), gradients)
    assert same_state(rule.state_dict(), state)
    # and the next step goes on as if it had not been
    again = mtopt.create_combiner(name)
    again.load_state_dict(state)
    for each in (rule, again):
        model.zero_grad()
        mtopt.backward(model.losses(), params, each)
        gradients, state = flat_gradient(params), flat_gradient(params) if each is rule else state
    close(gradients, state)


@pytest.mark.parametrize("how", ["tensors", "callables"])
@pytest.mark.parametrize(("name", "spoilt"), CASES)
def test_strict_raises_with_the_objectives_name(name: str, spoilt, how: str) -> None:  # type: ignore[no-untyped-def]
    model = MultiHead(2)
    params = list(model.parameters())
    rule = warmed_up(name, model)
    gradients, state = flat_gradient(params), rule.state_dict()
    with pytest.raises(NonFiniteError, match=r"non-finite (loss|gradient): bad; .*strict=False"):
        mtopt.backward(spoilt_losses(model, spoilt, how), params, rule, strict=True)
    assert torch.equal(flat_gradient(params), gradients)
    assert same_state(rule.state_dict(), state)


def test_a_gradient_that_is_infinite_in_a_head_alone_counts() -> None:
    model = MultiHead(2)
    features = model.features()
    losses = [model.loss(0, features), InfiniteGradient.apply(model.heads[1].bias).sum() + model.loss(1, features)]
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda"))
    assert record.reason == "non-finite gradient: loss_1"
    assert all(p.grad is None for p in model.parameters())


def test_a_good_step_says_so() -> None:
    model = MultiHead(2)
    record = mtopt.backward(model.losses(), model, mtopt.create_combiner("mgda"), strict=True)
    assert not record.skipped
    assert record.reason is None


# -- GradScaler ----------------------------------------------------------------------------------------------------


def scaled_step(
    model: MultiHead, rule: mtopt.Combiner, scaler: torch.amp.GradScaler, losses: Any
) -> tuple[mtopt.StepRecord, torch.Tensor]:
    """One step of the usual loop; the record and what unscaling left in ``.grad``."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    record = mtopt.backward(losses, model, rule, scaler=scaler)
    scaler.unscale_(optimizer)
    unscaled = flat_gradient(list(model.parameters()))
    scaler.step(optimizer)
    scaler.update()
    return record, unscaled


@pytest.mark.parametrize("name", FIVE)
@pytest.mark.parametrize("init_scale", [65536.0, 1.0, 3.0])
@pytest.mark.parametrize("how", ["tensors", "callables", "features"])
def test_a_grad_scaler_does_not_change_the_direction(name: str, init_scale: float, how: str) -> None:
    """A fresh scaler, which nobody has asked to scale before, over two steps."""
    model = MultiHead(2, dtype=torch.float32)
    params = list(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=1)
    rule, plain = mtopt.create_combiner(name), mtopt.create_combiner(name)
    for step in range(2):
        model.zero_grad()
        before = mtopt.backward(model.losses(), params, plain)
        expected = flat_gradient(params)
        features = model.features()
        if how == "features":
            optimizer = torch.optim.SGD(params, lr=0.1)
            optimizer.zero_grad()
            losses = [model.loss(k, features) for k in range(2)]
            record = mtopt.backward(losses, params, rule, scaler=scaler, features=features)
            scaler.unscale_(optimizer)
            unscaled = flat_gradient(params)
            scaler.step(optimizer)
            scaler.update()
        else:
            calls = [lambda k=k: model.losses()[k] for k in range(2)]
            record, unscaled = scaled_step(model, rule, scaler, calls if how == "callables" else model.losses())
        close(unscaled, expected, 1e-5)
        assert list(record.losses.values()) == pytest.approx(list(before.losses.values()))
        assert record.weights == pytest.approx(before.weights, rel=1e-4)
        if record.norms is not None and before.norms is not None:
            assert record.norms == pytest.approx(before.norms, rel=1e-4)
        assert scaler.get_scale() == init_scale * 2 ** (step + 1), "it saw a good step, and grows"


@pytest.mark.parametrize("name", FIVE)
def test_scaled_gradients_stay_scaled_in_grad(name: str) -> None:
    model = MultiHead(2, dtype=torch.float32)
    params = list(model.parameters())
    mtopt.backward(model.losses(), params, mtopt.create_combiner(name))
    expected = 1024 * flat_gradient(params)
    model.zero_grad()
    mtopt.backward(
        model.losses(), params, mtopt.create_combiner(name), scaler=torch.amp.GradScaler("cpu", init_scale=1024.0)
    )
    close(flat_gradient(params), expected, 1e-5)


@pytest.mark.parametrize("how", ["tensors", "callables"])
@pytest.mark.parametrize("init_scale", [65536.0, 1.0])
@pytest.mark.parametrize(("name", "spoilt"), CASES)
def test_a_scaler_backs_off_and_skips_when_the_step_is_skipped(  # type: ignore[no-untyped-def]
    name: str, spoilt, init_scale: float, how: str
) -> None:
    model = MultiHead(2, dtype=torch.float32)
    rule = warmed_up(name, model)
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
    state = rule.state_dict()
    weights = [p.detach().clone() for p in model.parameters()]
    record, _ = scaled_step(model, rule, scaler, spoilt_losses(model, spoilt, how))
    assert record.skipped
    assert scaler.get_scale() == init_scale / 2
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))
    assert same_state(rule.state_dict(), state)


def test_gradients_that_only_the_scale_makes_infinite_back_off_until_they_fit() -> None:
    model = MultiHead(2, dtype=torch.float32)
    params = list(model.parameters())

    def losses() -> list[torch.Tensor]:
        return [100 * loss for loss in model.losses()]

    mtopt.backward(losses(), params, mtopt.create_combiner("mgda"))
    expected = flat_gradient(params)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-20)
    record, _ = scaled_step(model, mtopt.create_combiner("mgda"), scaler, losses())
    assert record.skipped
    record, unscaled = scaled_step(model, mtopt.create_combiner("mgda"), scaler, losses())
    assert not record.skipped
    close(unscaled, expected, 1e-5)


def test_two_optimizers_of_one_scaler_both_skip() -> None:
    model = MultiHead(2, dtype=torch.float32)
    optimizers = [torch.optim.SGD(part.parameters(), lr=0.1) for part in (model.trunk, model.heads)]
    weights = [p.detach().clone() for p in model.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    mtopt.backward(spoilt_losses(model, infinite_loss, "tensors"), model, mtopt.create_combiner("mgda"), scaler=scaler)
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))


def test_a_scaler_that_is_switched_off_is_none() -> None:
    model = MultiHead(2)
    params = list(model.parameters())
    mtopt.backward(model.losses(), params, mtopt.create_combiner("mgda"))
    expected = flat_gradient(params)
    model.zero_grad()
    off = torch.amp.GradScaler("cpu", enabled=False)
    mtopt.backward(model.losses(), params, mtopt.create_combiner("mgda"), scaler=off)
    close(flat_gradient(params), expected)
    record = mtopt.backward(
        spoilt_losses(model, nan_loss, "tensors"), params, mtopt.create_combiner("mgda"), scaler=off
    )
    assert record.skipped
    close(flat_gradient(params), expected)


def test_tiny_and_huge_gradients_are_not_taken_for_broken_ones() -> None:
    for scale in (1e-30, 1e30):
        point = nn.Parameter(torch.ones(3))
        losses = [scale * point.sum(), scale * (point * torch.tensor([1.0, 1.0, 2.0])).sum()]
        record = mtopt.backward(losses, [point], mtopt.create_combiner("mgda"))
        assert not record.skipped
        close(point.grad / scale, torch.ones(3), 1e-5)  # type: ignore[operator]
