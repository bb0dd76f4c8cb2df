"""Rules on several mini-batches per step."""

from __future__ import annotations

import pytest
import torch

import mtopt
from mtopt.combiners import create_combiner
from mtopt.combiners.every import Every
from tests.autograd.helpers import MultiHead, Reference, close, extra_pass, flat_gradient

RULES = ("modo", "sdmgrad")


class Batches(MultiHead):
    """Three mini-batches of the same problem."""

    def __init__(self, heads: int = 2, *, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(heads, dtype=dtype)
        generator = torch.Generator().manual_seed(5)
        self.batches = [torch.randn(9, 4, generator=generator, dtype=torch.float64).to(dtype) for _ in range(3)]

    def on(self, draw: int) -> list[torch.Tensor]:
        features = self.trunk(self.batches[draw])
        return [self.loss(k, features) for k in range(len(self.heads))]

    def draws(self) -> list[list[torch.Tensor]]:
        return [self.on(draw) for draw in range(3)]


def expected_direction(model: Batches, rule: mtopt.Combiner) -> torch.Tensor:
    """The rule on the trunk's rows of three draws; the heads' own gradients on the last."""
    params = list(model.parameters())
    rows = [Reference.of(lambda draw=draw: model.on(draw), params).jacobian for draw in range(3)]
    direction = rows[-1].sum(0)
    direction[: model.trunk_size] = rule(torch.stack(rows)[:, :, : model.trunk_size])
    return direction


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["sequences", "mappings", "callables", "callable losses"])
def test_the_direction_is_the_rules_over_three_steps(name: str, kind: str) -> None:
    model = Batches(3)
    params = list(model.parameters())
    rule, by_hand = create_combiner(name), create_combiner(name)
    for _ in range(3):
        expected = expected_direction(model, by_hand)
        model.zero_grad()
        if kind == "sequences":
            given = model.draws()
        elif kind == "mappings":
            given = [dict(zip("abc", losses, strict=True)) for losses in model.draws()]
        elif kind == "callables":
            given = [lambda draw=draw: model.on(draw) for draw in range(3)]
        else:
            given = [[lambda draw=draw, k=k: model.on(draw)[k] for k in range(3)] for draw in range(3)]
        record = mtopt.backward(given, model, rule)  # type: ignore[arg-type]
        close(flat_gradient(params), expected, 1e-8)
        assert list(record.losses) == (["a", "b", "c"] if kind == "mappings" else ["loss_0", "loss_1", "loss_2"])
        assert record.backwards == (9 if kind == "callable losses" else 7 + extra_pass(record))
        assert record.weights is not None
        assert record.cosines is not None
        with torch.no_grad():
            for param in params:
                param -= 0.1 * param.grad  # type: ignore[operator]


@pytest.mark.parametrize("private", ["weighted", "combined"])
@pytest.mark.parametrize("callables", [False, True])
def test_private_parameters(private: str, callables: bool) -> None:
    model = Batches(2)
    params = list(model.parameters())
    rows = [Reference.of(lambda draw=draw: model.on(draw), params).jacobian for draw in range(3)]
    given = (
        [[lambda draw=d, k=k: model.on(draw)[k] for k in range(2)] for d in range(3)] if callables else model.draws()
    )
    record = mtopt.backward(given, model, create_combiner("modo", gamma=0.1), private=private)  # type: ignore[arg-type]
    columns = model.trunk_size if private == "weighted" else rows[0].shape[1]
    rule = create_combiner("modo", gamma=0.1)
    rule(torch.stack(rows)[:, :, :columns])
    weights = rule._lambda  # type: ignore[attr-defined]
    assert list(record.weights.values()) == pytest.approx(weights.tolist())  # type: ignore[union-attr]
    close(flat_gradient(params), weights @ rows[-1])


def test_an_absent_loss_and_a_maximised_one() -> None:
    model = Batches(3)
    params = list(model.parameters())
    forget = mtopt.Objective("forget", sense="max")
    draws = [{"keep": a, "gone": None, forget: c} for a, _, c in model.draws()]
    rule = create_combiner("modo", gamma=0.1)
    mtopt.backward(draws, model, rule)  # type: ignore[arg-type]

    def signed(draw: int) -> list[torch.Tensor]:
        losses = model.on(draw)
        return [losses[0], -losses[2]]

    rows = [Reference.of(lambda draw=draw: signed(draw), params).jacobian for draw in range(3)]
    expected = rows[-1].sum(0)
    expected[: model.trunk_size] = create_combiner("modo", gamma=0.1)(torch.stack(rows)[:, :, : model.trunk_size])
    close(flat_gradient(params), expected)


@pytest.mark.parametrize("draw", [0, 1, 2])
@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_draw_that_is_not_finite_skips_the_step(draw: int, kind: str) -> None:
    model = Batches(2)
    rule = create_combiner("modo", gamma=0.1)
    mtopt.backward(model.draws(), model, rule)
    model.zero_grad()
    before = str(rule.state_dict())
    draws = model.draws()
    first = next(iter(model.parameters()))
    draws[draw][1] = draws[draw][1] * torch.inf if kind == "loss" else draws[draw][1] + (first * 0).sqrt().sum()
    record = mtopt.backward(draws, model, rule)
    assert record.skipped
    assert all(param.grad is None for param in model.parameters())
    assert str(rule.state_dict()) == before
    assert not mtopt.backward(model.draws(), model, rule).skipped


def test_a_gradscaler() -> None:
    model = Batches(2)
    params = list(model.parameters())
    mtopt.backward(model.draws(), model, create_combiner("modo", gamma=0.1))
    expected = flat_gradient(params)
    model.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    mtopt.backward(model.draws(), model, create_combiner("modo", gamma=0.1), scaler=scaler)
    close(flat_gradient(params), 512.0 * expected)


def test_a_kept_step_looks_at_the_last_draw_alone() -> None:
    model = Batches(3)
    params = list(model.parameters())
    rule, ran = Every(create_combiner("modo", gamma=0.1), 3), []

    def draw(number: int) -> list[torch.Tensor]:
        ran.append(number)
        return model.on(number)

    for step in range(4):
        model.zero_grad()
        record = mtopt.backward([lambda number=number: draw(number) for number in range(3)], model, rule)
        assert record.backwards == (7 if step in (0, 3) else 1) + extra_pass(record)
    assert ran == [0, 1, 2, 2, 2, 0, 1, 2]
    jacobian = Reference.of(lambda: model.on(2), params).jacobian
    weights = torch.tensor(list(record.weights.values()), dtype=torch.float64)  # type: ignore[union-attr]
    expected = jacobian.sum(0)
    expected[: model.trunk_size] = weights @ jacobian[:, : model.trunk_size]
    close(flat_gradient(params), expected)


def test_wrong_losses() -> None:
    model = Batches(2)
    rule = create_combiner("modo")
    wanted = r"MoDo\(\) takes 3 independent mini-batches per step: losses must be a sequence of 3 collections"
    with pytest.raises(ValueError, match=wanted + ".*found 2: Tensor, Tensor"):
        mtopt.backward(model.losses(), model, rule)
    with pytest.raises(ValueError, match=wanted + ".*found 2: list, list"):
        mtopt.backward(model.draws()[:2], model, rule)
    with pytest.raises(TypeError, match=wanted + ".*found dict"):
        mtopt.backward({"a": model.losses()[0]}, model, rule)
    with pytest.raises(
        ValueError, match=r"the draws must hold the same objectives, found \['loss_0', 'loss_1'\] in draw 0"
    ):
        mtopt.backward([model.on(0), [model.on(1)[0], None], model.on(2)], model, rule)
    with pytest.raises(ValueError, match="features belong to one mini-batch"):
        mtopt.backward(model.draws(), model, rule, features=model.features())
    with pytest.raises(TypeError, match="losses must be a sequence or a mapping") as caught:
        mtopt.backward([model.on(0), lambda: model.losses()[0], model.on(2)], model, rule)
    assert caught.value.__notes__ == ["in the losses of draw 1"]
    with pytest.raises(TypeError, match=r"loss 'loss_0' must be a scalar tensor.*found list"):
        mtopt.backward(model.draws(), model, create_combiner("mgda"))  # type: ignore[arg-type]
    assert all(param.grad is None for param in model.parameters())
