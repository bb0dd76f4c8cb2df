"""Loops that look like real training: autocast, a GradScaler, clipping, and losses that overflow now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from mtopt.combiners import Combiner
from mtopt.testing._state import same
from tests.autograd.helpers import close, flat_gradient
from tests.autograd.models import build

STEPS = 500

RULES: dict[str, Callable[[], Combiner]] = {
    "famo": lambda: mtopt.create_combiner("famo"),
    "ngdiff": lambda: mtopt.create_combiner("ngdiff"),
    "nash_mtl": lambda: mtopt.create_combiner("nash_mtl"),
    "gradvac": lambda: mtopt.create_combiner("gradvac"),
    "moco": lambda: mtopt.create_combiner("moco"),
}
"""Of each kind: on losses, norms, the Gramian and coordinates, with a state and without."""


class TwoTasks(nn.Module):
    """Two regressions on one layer; batch t is the same in every run."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.trunk = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.heads = nn.ParameterList(torch.randn(4, generator=generator) for _ in range(2))
        self.inputs = torch.randn(STEPS, 8, 3, generator=generator)

    def losses(self, step: int) -> dict[str, torch.Tensor]:
        inputs = self.inputs[step]
        features = torch.tanh(inputs @ self.trunk)
        first, second = self.heads
        return {
            "a": (features @ first - inputs[:, 0]).square().mean(),
            "b": (features @ second - inputs[:, 1].abs()).square().mean(),
        }


def poisoned_steps() -> dict[int, str]:
    """5 % of the steps, and the loss that overflows in each."""
    order = torch.randperm(STEPS, generator=torch.Generator().manual_seed(5))[: STEPS // 20].tolist()
    return {step: "ab"[step % 2] for step in order}


@dataclass
class Run:
    """What a loop leaves behind."""

    model: TwoTasks
    rule: Combiner
    optimizer: torch.optim.Optimizer
    skipped: list[int] = field(default_factory=list)


def train(make: Callable[[], Combiner], steps: Iterator[int], poison: dict[int, str], scaler: Any = None) -> Run:
    model, rule = TwoTasks(), make()
    run = Run(model, rule, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9))
    for step in steps:
        run.optimizer.zero_grad()
        losses = model.losses(step)
        if step in poison:  # beyond the largest number of float16
            name = poison[step]
            losses[name] = (losses[name] * 1e12).to(torch.float16).float()
        record = mtopt.backward(losses, model, rule, scaler=scaler)
        if record.skipped:
            run.skipped.append(step)
        if scaler is not None:
            scaler.step(run.optimizer)
            scaler.update()
        elif not record.skipped:
            run.optimizer.step()
        if rule.awaits_losses and not record.skipped:
            with torch.no_grad():
                rule.reevaluate(torch.stack(list(model.losses(step).values())))
    return run


@pytest.mark.parametrize("name", RULES)
def test_steps_that_overflow_are_as_if_they_had_not_been(name: str) -> None:
    poison = poisoned_steps()
    clean = train(RULES[name], (step for step in range(STEPS) if step not in poison), {})
    run = train(RULES[name], iter(range(STEPS)), poison)
    assert run.skipped == sorted(poison)
    assert len(run.skipped) == 25
    assert same(run.rule.state_dict(), clean.rule.state_dict())
    assert same(run.model.state_dict(), clean.model.state_dict())
    assert same(run.optimizer.state_dict(), clean.optimizer.state_dict())


@pytest.mark.parametrize("name", ["famo", "nash_mtl", "moco"])
def test_a_grad_scaler_backs_off_at_these_steps_and_at_no_other(name: str) -> None:
    poison = {step: loss for step, loss in poisoned_steps().items() if step < 100}
    assert len(poison) > 3
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=10_000)
    run = train(RULES[name], iter(range(100)), poison, scaler)
    assert run.skipped == sorted(poison)
    assert scaler.get_scale() == 2.0 ** (16 - len(poison))
    clean = train(RULES[name], (step for step in range(100) if step not in poison), {})
    for found, expected in zip(run.model.parameters(), clean.model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["cnn", "transformer"])
@pytest.mark.parametrize("rule", ["ngdiff", "mgda", "trimmed_mean"])
def test_autocast_with_a_grad_scaler(dtype: torch.dtype, name: str, rule: str) -> None:
    """The direction is that of a hand-written loop under the same autocast, to the bit of the rows."""
    model = build(name, dtype=torch.float32)
    params = list(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    optimizer = torch.optim.SGD(params, lr=0.1)

    def losses() -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=dtype):
            return list(model.losses().values())

    rows = [
        [None if g is None else g / 128.0 for g in torch.autograd.grad(losses()[k] * 128.0, params, allow_unused=True)]
        for k in range(2)
    ]
    shared = [index for index in range(len(params)) if all(row[index] is not None for row in rows)]
    jacobian = torch.stack([torch.cat([row[index].reshape(-1) for index in shared]) for row in rows])  # type: ignore[union-attr]
    record = mtopt.backward(losses(), model, mtopt.create_combiner(rule), scaler=scaler)
    assert not record.skipped
    scaler.unscale_(optimizer)
    close(flat_gradient([params[index] for index in shared]), mtopt.create_combiner(rule)(jacobian), 1e-5)
    before = [param.detach().clone() for param in params]
    scaler.step(optimizer)
    assert not torch.equal(before[shared[0]], params[shared[0]])


@pytest.mark.parametrize("rule", ["linear", "mgda", "moco"])
def test_clipping_after_the_combination(rule: str) -> None:
    """``scaler.unscale_`` and ``clip_grad_norm_`` see the direction, as they see a plain gradient."""
    model, plain = TwoTasks(), TwoTasks()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    mtopt.backward(plain.losses(0), plain, mtopt.create_combiner(rule))
    direction = flat_gradient(list(plain.parameters()))
    mtopt.backward(model.losses(0), model, mtopt.create_combiner(rule), scaler=scaler)
    scaler.unscale_(optimizer)
    length = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    assert float(length) == pytest.approx(float(direction.norm()), rel=1e-5)
    before = nn.utils.parameters_to_vector(model.parameters()).detach()
    scaler.step(optimizer)
    moved = before - nn.utils.parameters_to_vector(model.parameters()).detach()
    close(moved, 0.1 * direction / direction.norm(), 2e-5)


def test_clipping_before_the_combination() -> None:
    """A loss with gradients a million times longer cannot drag the step when clipped before; after, it is the step."""

    def directions(rule: Combiner) -> torch.Tensor:
        model = TwoTasks()
        losses = model.losses(0)
        mtopt.backward({"a": losses["a"] * 1e6, "b": losses["b"]}, model, rule)
        return flat_gradient([model.trunk])

    total = mtopt.create_combiner("linear", reduction="sum")
    rows = {}
    for name in "ab":
        model = TwoTasks()
        model.losses(0)[name].backward()
        rows[name] = flat_gradient([model.trunk])
    clipped = directions(mtopt.Clipped(total, 1e-3))
    close(clipped, 1e-3 * (rows["a"] / rows["a"].norm() + rows["b"] / rows["b"].norm()), 1e-5)
    burst = directions(total)
    assert float(burst @ rows["a"] / burst.norm() / rows["a"].norm()) > 0.999999
