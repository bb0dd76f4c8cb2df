"""MoDo without Jacobians: a weighted backward, a product along it on another draw, and a weighted backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from mtopt import MatrixFree
from mtopt.combiners import create_combiner
from tests.autograd.costs import counted
from tests.autograd.helpers import close, flat_gradient
from tests.autograd.test_several_draws import Batches

Draws = list[Callable[[], Any]]


def draws_of(model: Batches) -> Draws:
    return [lambda draw=draw: model.on(draw) for draw in range(3)]


def modo() -> mtopt.Combiner:
    return create_combiner("modo", gamma=0.3, rho=0.2)


def walked(model: nn.Module, draws: Draws, rule: mtopt.Combiner, steps: int, **options: Any) -> list[torch.Tensor]:
    """The direction of each of some steps of descent."""
    found = []
    params = list(model.parameters())
    for _ in range(steps):
        model.zero_grad()
        record = mtopt.backward(draws, model, rule, **options)
        assert not record.skipped
        found.append(flat_gradient(params))
        with torch.no_grad():
            for param in params:
                param -= 0.05 * (0.0 if param.grad is None else param.grad)
    return found


@pytest.mark.parametrize(("product", "tolerance"), [("exact", 1e-10), ("displacement", 1e-6)])
@pytest.mark.parametrize("private", ["own", "weighted", "combined"])
def test_the_steps_are_those_with_jacobians(product: Any, tolerance: float, private: Any) -> None:
    """No model of the Gramian, no error but that of the product: the rule needs nothing else."""
    plain, free = Batches(3), Batches(3)
    wanted = walked(plain, draws_of(plain), modo(), 4, private=private)
    found = walked(free, draws_of(free), modo(), 4, private=private, plan=MatrixFree(product))
    for one, other in zip(found, wanted, strict=True):
        close(one, other, tolerance)
    assert len({tuple(one.tolist()) for one in wanted}) == 4


def test_what_the_record_says() -> None:
    model, other = Batches(3), Batches(3)
    record = mtopt.backward(draws_of(model), model, modo(), plan="matrix_free")  # type: ignore[arg-type]
    rows = mtopt.backward(draws_of(other), other, modo())  # type: ignore[arg-type]
    assert record.losses == rows.losses
    assert record.weights == pytest.approx(rows.weights)
    assert record.backwards == 2
    assert "forward-mode product on draw 0" in record.plan


class Tower(nn.Module):
    """Dropout, batch norm, and a loss that goes around a layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.3))
        self.last = nn.Linear(6, 5)
        self.heads = nn.ModuleList([nn.Linear(5, 1), nn.Linear(5, 1), nn.Linear(6, 1)])
        self.double()

    def losses(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        low = self.first(batch)
        high = torch.tanh(self.last(low))
        each = zip("abc", self.heads, (high, high, low), strict=True)
        return {name: (head(seen) - n).square().mean() for n, (name, head, seen) in enumerate(each)}


def test_dropout_batch_norm_and_what_only_some_losses_reach() -> None:
    """Each draw counts once in the statistics and takes its random numbers once, as with Jacobians."""
    batches = torch.randn(3, 9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    found = []
    for options in ({}, {"plan": "matrix_free"}):
        model, rule = Tower(), modo()
        torch.manual_seed(5)
        draws: Draws = [lambda batch=batch, m=model: m.losses(batch) for batch in batches]
        directions = walked(model, draws, rule, 3, **options)
        found.append((directions, dict(model.named_buffers()), torch.get_rng_state(), rule.state_dict()))
    (wanted, buffers, state, held), (directions, others, other_state, other_held) = found
    for one, other in zip(directions, wanted, strict=True):
        close(one, other, 1e-9)
    for name, buffer in buffers.items():
        torch.testing.assert_close(others[name], buffer)
    assert torch.equal(state, other_state)
    assert held["groups"].keys() == other_held["groups"].keys() == {"a,b"}


def test_a_scaler_is_seen_through() -> None:
    plain, scaled = Batches(3), Batches(3)
    (wanted,) = walked(plain, draws_of(plain), modo(), 1, plan="matrix_free")
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    mtopt.backward(draws_of(scaled), scaled, modo(), plan="matrix_free", scaler=scaler)  # type: ignore[arg-type]
    close(flat_gradient(list(scaled.parameters())) / 256, wanted)


@pytest.mark.parametrize("draw", [0, 1, 2])
@pytest.mark.parametrize("spoiled", ["loss", "gradient"])
def test_a_draw_that_is_not_finite_skips_the_step(draw: int, spoiled: str) -> None:
    model, rule = Batches(2), modo()
    walked(model, draws_of(model), rule, 1, plan="matrix_free")
    model.zero_grad()
    state = str(rule.state_dict())

    def bad() -> list[torch.Tensor]:
        losses, weight = model.on(draw), next(model.parameters())
        losses[1] = (
            losses[1] * torch.inf if spoiled == "loss" else losses[1] + (weight - weight.detach()).abs().sqrt().sum()
        )
        return losses

    draws = draws_of(model)
    draws[draw] = bad
    record = mtopt.backward(draws, model, rule, plan="matrix_free")  # type: ignore[arg-type]
    assert record.skipped
    assert all(param.grad is None for param in model.parameters())
    assert str(rule.state_dict()) == state
    with pytest.raises(mtopt.NonFiniteError):
        mtopt.backward(draws, model, rule, plan="matrix_free", strict=True)  # type: ignore[arg-type]


def test_between_products_the_weights_are_kept() -> None:
    model, plain = Batches(3), Batches(3)
    rule, other = mtopt.Every(modo(), 2), mtopt.Every(modo(), 2)
    runs = [0, 0, 0]

    def on(draw: int) -> list[torch.Tensor]:
        runs[draw] += 1
        return model.on(draw)

    found = walked(model, [lambda draw=d: on(draw) for d in range(3)], rule, 4, plan="matrix_free")
    for one, wanted in zip(found, walked(plain, draws_of(plain), other, 4), strict=True):
        close(one, wanted)
    assert runs == [4, 2, 4]  # the first draw is run for its losses and for the product


def test_a_loss_that_is_absent_keeps_its_weight() -> None:
    found = []
    for options in ({}, {"plan": "matrix_free"}):
        model, rule = Batches(3), modo()
        walked(model, draws_of(model), rule, 1, **options)
        without: Draws = [lambda draw=draw, m=model: [m.on(draw)[0], None, m.on(draw)[2]] for draw in range(3)]
        found += [walked(model, without, rule, 1, **options)[0], walked(model, draws_of(model), rule, 1, **options)[0]]
    close(found[2], found[0])
    close(found[3], found[1])


def test_the_cost_does_not_grow_with_the_losses() -> None:
    def made(model: Any) -> Callable[[], None]:
        rule, optimizer = modo(), torch.optim.SGD(model.parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            mtopt.backward([model.losses] * 3, model, rule, plan=MatrixFree("displacement"))
            optimizer.step()

        return step

    def plain(model: Any) -> Callable[[], None]:
        return lambda: torch.stack(model.losses()).sum().backward()  # type: ignore[no-untyped-call]

    shares = [counted(made, tasks).flops / counted(plain, tasks).flops for tasks in (2, 16)]
    assert max(shares) <= 2.8  # two plain steps and two forwards
    assert abs(shares[0] - shares[1]) < 0.05


def test_what_it_cannot_do_is_said() -> None:
    model = Batches(2)
    with pytest.raises(TypeError, match="runs the losses twice, and loss 'loss_0' is a tensor"):
        mtopt.backward(model.draws(), model, modo(), plan="matrix_free")
    with pytest.raises(TypeError, match="params must be the module"):
        mtopt.backward(draws_of(model), model.parameters(), modo(), plan="matrix_free")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"SDMGrad\(\) needs more: modo, or Every"):
        mtopt.backward(draws_of(model), model, create_combiner("sdmgrad"), plan="matrix_free")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="makes its own step"):
        mtopt.backward(draws_of(model), model, modo(), plan=MatrixFree(iterations=2))  # type: ignore[arg-type]
    draws = draws_of(model)
    draws[2] = lambda: model.on(2)[:1]
    with pytest.raises(ValueError, match=r"the same objectives, found .* in draw 2"):
        mtopt.backward(draws, model, modo(), plan="matrix_free")  # type: ignore[arg-type]
