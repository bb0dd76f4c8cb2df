"""Steps with weights that the rule keeps: one weighted backward, the same direction."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mtopt
from mtopt.combiners import Combiner, create_combiner
from mtopt.combiners.every import Every
from mtopt.combiners.smoothed import Smoothed
from tests.autograd.helpers import MultiHead, Reference, close, extra_pass, flat_gradient
from tests.autograd.test_direction import ALIASED, Branching

RULES = ("mgda", "pcgrad", "moco", "ngdiff")


def moved(params: list[nn.Parameter]) -> None:
    with torch.no_grad():
        for index, param in enumerate(params):
            param += 0.05 * torch.sin(torch.arange(param.numel(), dtype=param.dtype) + index).reshape(param.shape)


class Rows:
    """Steps by rows alone: the losses as callables, for which the engine takes no weighted backward."""

    def __init__(self, rule: Combiner) -> None:
        self.rule = rule

    def direction(self, model: MultiHead | Branching, private: str | None = None) -> torch.Tensor:
        model.zero_grad()
        losses = [lambda k=k: model.losses()[k] for k in range(len(model.losses()))]
        mtopt.backward(losses, model, self.rule, private=private)  # type: ignore[arg-type]
        found = flat_gradient(list(model.parameters()))
        model.zero_grad()
        return found


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("private", [None, "own", "weighted", "combined"])
def test_kept_steps_give_what_rows_give(name: str, private: str | None) -> None:
    model = MultiHead(3)
    params = list(model.parameters())
    rule, rows = Every(create_combiner(name), 3), Rows(Every(create_combiner(name), 3))
    for step in range(7):
        expected = rows.direction(model, private)
        record = mtopt.backward(model.losses(), model, rule, private=private)  # type: ignore[arg-type]
        close(flat_gradient(params), expected)
        kept = step % 3 != 0
        assert record.plan.startswith("one weighted backward: the rule keeps weights") == kept
        one = private in ("weighted", "combined")
        assert record.backwards == ((1 if one else 1 + extra_pass(record)) if kept else 3)
        assert (record.norms is None) == kept
        assert record.weights is not None
        moved(params)


@pytest.mark.parametrize("name", RULES)
def test_parameters_that_some_losses_reach_keep_their_own_weights(name: str) -> None:
    model = Branching()
    params = list(model.parameters())
    rule, rows = Every(create_combiner(name), 3), Rows(Every(create_combiner(name), 3))
    for step in range(7):
        expected = rows.direction(model)
        record = mtopt.backward(model.losses(), model, rule)
        close(flat_gradient(params), expected)
        # a kept step takes one for each set of losses
        assert record.backwards in ((3,) if step % 3 == 0 else (2, 2 + extra_pass(record)))
        moved(params)
        if step == 4:
            saved = rule.state_dict()
            rule = Every(create_combiner(name), 3)
            rule.load_state_dict(saved)


def test_without_heads_a_kept_step_is_one_backward() -> None:
    model = MultiHead(4)
    params = list(model.trunk.parameters())
    rule = Every(create_combiner("mgda"), 10)
    backwards = [mtopt.backward(model.losses(), params, rule).backwards for _ in range(10)]
    assert sum(backwards) == 4 + 9


def test_the_trunk_is_passed_once_in_a_kept_step() -> None:
    model = MultiHead(4)
    rule = Every(create_combiner("mgda"), 2)
    passes: list[int] = []
    for _ in range(2):
        hidden = model.trunk[0](model.inputs)
        count = [0]
        hidden.register_hook(lambda gradient, count=count: count.__setitem__(0, count[0] + 1))
        features = model.trunk[1:](hidden)
        mtopt.backward([model.loss(k, features) for k in range(4)], model, rule)
        passes.append(count[0])
    assert passes == [4, 1]


def test_it_adds_to_grad_and_frees_the_graph() -> None:
    model = MultiHead(2)
    params = list(model.parameters())
    rule = Every(create_combiner("mgda"), 5)
    mtopt.backward(model.losses(), model, rule)
    once = flat_gradient(params)
    losses = model.losses()
    mtopt.backward(losses, model, rule)
    close(flat_gradient(params), 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        losses[-1].backward()


def test_features_say_what_the_trunk_is_in_kept_steps_too() -> None:
    """With one loss in the step, only features tell the trunk from the head."""
    model = MultiHead(2)
    params = list(model.parameters())
    rule = Every(create_combiner("ngdiff"), 3)
    features = model.features()
    record = mtopt.backward([model.loss(k, features) for k in range(2)], model, rule, features=features)
    weights = list(record.weights.values())  # type: ignore[union-attr]
    model.zero_grad()
    features = model.features()
    mtopt.backward([model.loss(0, features), None], model, rule, features=features)
    expected = Reference.of(lambda: model.losses()[:1], params).jacobian[0]
    expected[: model.trunk_size] *= weights[0]
    close(flat_gradient(params), expected)


def test_a_skipped_step_does_not_count() -> None:
    model = MultiHead(2)
    params = list(model.parameters())
    rule = Every(create_combiner("mgda"), 3)

    def poisoned() -> list[torch.Tensor]:
        losses = model.losses()
        return [losses[0], losses[1] + (params[0] * 0).sqrt().sum()]  # finite, with an infinite slope

    for bad in ([lambda: [model.losses()[0], model.losses()[1] * torch.nan], poisoned]) * 2:
        mtopt.backward(model.losses(), model, rule)
        model.zero_grad()
        before = str(rule.state_dict())
        record = mtopt.backward(bad(), model, rule)
        assert record.skipped
        assert "non-finite" in (record.reason or "")
        assert all(param.grad is None for param in params)
        assert str(rule.state_dict()) == before
        with pytest.raises(mtopt.NonFiniteError):
            mtopt.backward(bad(), model, rule, strict=True)
    plans = [mtopt.backward(model.losses(), model, rule).plan.startswith("one weighted") for _ in range(3)]
    assert plans == [True, True, False], "four steps were done, the last of them with new weights"


def test_a_gradscaler_sees_a_skipped_kept_step_and_scales_the_others() -> None:
    model = MultiHead(2, dtype=torch.float32)
    params = list(model.parameters())
    optimizer = torch.optim.SGD(params, lr=0.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    rule = Every(create_combiner("mgda"), 4)
    mtopt.backward(model.losses(), model, rule, scaler=scaler)
    model.zero_grad()
    expected = Reference.of(model.losses, params)
    record = mtopt.backward(model.losses(), model, rule, scaler=scaler)
    weights = torch.tensor(list(record.weights.values()))  # type: ignore[union-attr]
    shared = slice(0, model.trunk_size)
    direction = expected.jacobian.sum(0)
    direction[shared] = weights @ expected.jacobian[:, shared]
    close(flat_gradient(params), 256.0 * direction, 1e-5)
    model.zero_grad()
    record = mtopt.backward([loss * torch.inf for loss in model.losses()], model, rule, scaler=scaler)
    assert record.skipped
    assert bool(flat_gradient(params).isnan().all())
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 128.0


def test_a_rule_on_losses_behind_wrappers_is_one_weighted_backward() -> None:
    model = MultiHead(2)
    params = list(model.parameters())
    rule = Smoothed(Every(create_combiner("gls"), 2), 0.5)
    by_hand = create_combiner("gls")
    average = None
    for step in range(4):
        reference = Reference.of(model.losses, params)
        if step % 2 == 0:
            weights = by_hand.weigh(reference.losses, (0, 1), 2)
        average = weights if average is None else 0.5 * average + 0.5 * weights
        model.zero_grad()
        record = mtopt.backward(model.losses(), model, rule)
        assert record.backwards == 1
        close(flat_gradient(params), average @ reference.jacobian)
        moved(params)


@pytest.mark.parametrize("case", ALIASED)
def test_gradients_that_share_memory_are_taken_apart(case: str) -> None:
    a, b = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in ([1.0, -2.0, 3.0], [0.5, 0.1, -1.0]))
    rule = Every(create_combiner("mgda"), 2)
    mtopt.backward(ALIASED[case](a, b), [a, b], rule)
    first = flat_gradient([a, b])
    a.grad = b.grad = None
    mtopt.backward(ALIASED[case](a, b), [a, b], rule)
    close(flat_gradient([a, b]), first)
    for param, other in ((a, b), (b, a)):
        if param.grad is not None:
            before = flat_gradient([other]).clone()
            param.grad[0] = 99.0
            assert param.grad.tolist().count(99.0) == 1
            close(flat_gradient([other]), before)


def test_a_loss_that_reaches_nothing_is_named_in_a_kept_step() -> None:
    model = MultiHead(2)
    rule = Every(create_combiner("mgda"), 5)
    mtopt.backward(model.losses(), model, rule)
    elsewhere = torch.ones(2, requires_grad=True).sum()
    with pytest.raises(ValueError, match="loss 'loss_1' reaches none of params"):
        mtopt.backward([model.losses()[0], elsewhere], model, rule)


def test_a_loss_not_seen_before_asks_the_rule() -> None:
    model = MultiHead(3)
    rule = Every(create_combiner("mgda"), 5)
    losses = model.losses()
    mtopt.backward([losses[0], losses[1], None], model, rule)
    record = mtopt.backward(model.losses(), model, rule)
    assert record.plan == "one backward pass per loss"
    losses = model.losses()
    record = mtopt.backward([None, losses[1], losses[2]], model, rule)
    assert record.plan.startswith("one weighted backward")
    assert list(record.weights or {}) == ["loss_1", "loss_2"]
