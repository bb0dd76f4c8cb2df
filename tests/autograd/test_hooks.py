"""Hooks that wait for a gradient to be accumulated, such as an optimizer in the backward."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

import mtopt
from tests.autograd.helpers import FIVE, MultiHead, flat_gradient
from tests.autograd.test_existing_gradients import STEPS


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_they_fire_once_with_the_direction(step: Callable[[MultiHead], Any]) -> None:
    plain, model = MultiHead(3), MultiHead(3)
    step(plain)
    fired: dict[torch.Tensor, list[torch.Tensor]] = {param: [] for param in model.parameters()}
    for param in model.parameters():
        param.register_post_accumulate_grad_hook(lambda p: fired[p].append(p.grad.clone()))
    step(model)
    for expected, param in zip(plain.parameters(), model.parameters(), strict=True):
        (seen,) = fired[param]
        assert torch.equal(seen, expected.grad)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS.keys())
def test_an_optimizer_in_the_backward_trains_as_one_after_it(step: Callable[[MultiHead], Any]) -> None:
    plain, model = MultiHead(3), MultiHead(3)
    after = torch.optim.SGD(plain.parameters(), lr=0.1)
    inside = {param: torch.optim.SGD([param], lr=0.1) for param in model.parameters()}

    def take_step(param: torch.Tensor) -> None:
        inside[param].step()
        inside[param].zero_grad()

    for param in model.parameters():
        param.register_post_accumulate_grad_hook(take_step)
    for _ in range(2):
        step(plain)
        after.step()
        after.zero_grad()
        step(model)
    assert all(param.grad is None for param in model.parameters())
    for expected, param in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(param, expected)


def test_a_rule_on_two_points_visits_the_point_before_the_hooks_moved_it() -> None:
    rules = [mtopt.create_combiner("moco_plus") for _ in range(2)]
    plain, model = MultiHead(2), MultiHead(2)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    for param in model.parameters():
        param.register_post_accumulate_grad_hook(lambda p: p.sub_(p.grad, alpha=0.1))
    for _ in range(3):
        for each, rule in zip((plain, model), rules, strict=True):
            each.zero_grad()
            mtopt.backward(each.losses, each, rule)
        optimizer.step()
        assert torch.equal(flat_gradient([*plain.parameters()]), flat_gradient([*model.parameters()]))


@pytest.mark.parametrize("name", FIVE)
def test_they_do_not_fire_in_a_skipped_step_nor_where_no_loss_reaches(name: str) -> None:
    model = MultiHead(3)
    fired: Counter[torch.Tensor] = Counter()
    for param in model.parameters():
        param.register_post_accumulate_grad_hook(lambda p: fired.update([p]))
    rule = mtopt.create_combiner(name)
    losses = model.losses()
    losses[1] = losses[1] * torch.nan
    assert mtopt.backward(losses, model, rule).skipped
    assert not fired
    mtopt.backward(model.losses()[:2], model, rule)
    assert set(fired) == {*model.trunk.parameters(), *model.heads[:2].parameters()}
    assert set(fired.values()) == {1}


@pytest.mark.parametrize("name", FIVE)
def test_hooks_on_the_gradient_itself_act_as_ever(name: str) -> None:
    plain = MultiHead(2)
    model = copy.deepcopy(plain)
    for each in (plain, model):
        each.trunk[0].weight.register_hook(lambda g: 2 * g)
    model.trunk[0].weight.register_post_accumulate_grad_hook(lambda p: None)
    for each in (plain, model):
        mtopt.backward(each.losses(), each, mtopt.create_combiner(name))
    assert torch.equal(flat_gradient([*plain.parameters()]), flat_gradient([*model.parameters()]))


def test_what_a_removed_one_and_a_raising_one_leave() -> None:
    model = MultiHead(2)
    params = [*model.parameters()]
    params[0].register_post_accumulate_grad_hook(lambda p: 1 / 0).remove()
    mtopt.backward(model.losses(), model, mtopt.create_combiner("mgda"))
    expected = flat_gradient(params)
    model.zero_grad()
    params[0].register_post_accumulate_grad_hook(lambda p: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mtopt.backward(model.losses(), model, mtopt.create_combiner("mgda"))
    assert torch.equal(flat_gradient(params), expected)  # all of it was written
