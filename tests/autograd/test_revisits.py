"""Rules that look at each batch at two points: the second visit is exact, and leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from mtopt.combiners import MoCoPlus
from mtopt.testing._state import same
from tests.autograd.helpers import close, flat_gradient
from tests.autograd.models import Model, build

RULE = {"c": 0.5, "k": 1.0, "w": 1.0, "sigma": 0.1, "gamma": 0.01}

Step = Callable[..., mtopt.StepRecord]


def all_at_once(model: Model, rule: mtopt.Combiner, **options: Any) -> mtopt.StepRecord:
    return mtopt.backward(model.compute, model, rule, private="combined", **options)


def one_by_one(model: Model, rule: mtopt.Combiner, **options: Any) -> mtopt.StepRecord:
    losses: Any = {name: lambda name=name: model.compute()[name] for name in ("class", "depth")}
    return mtopt.backward(losses, model, rule, private="combined", **options)


def rows(model: Model, how: Step) -> torch.Tensor:
    """The gradients by hand, with random numbers drawn as ``how`` draws them."""
    params, found = list(model.parameters()), []
    losses = model.compute() if how is all_at_once else {}
    for name in ("class", "depth"):
        loss = losses[name] if losses else model.compute()[name]
        gradients = torch.autograd.grad(loss, params, retain_graph=bool(losses), allow_unused=True)
        pairs = zip(params, gradients, strict=True)
        found.append(torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in pairs]))
    return torch.stack(found)


@pytest.mark.parametrize("how", [all_at_once, one_by_one])
def test_three_steps_are_those_by_hand_and_the_second_visit_leaves_no_trace(how: Step) -> None:
    """With dropout and BatchNorm: the same masks at both points, statistics that move once, generators that go on."""
    model, twin = build("cnn"), build("cnn")
    rule, by_hand = MoCoPlus(**RULE), MoCoPlus(**RULE)
    previous = None
    torch.manual_seed(3)
    for _ in range(3):
        generator = torch.get_rng_state()
        here = rows(twin, how)
        after = torch.get_rng_state()
        before = here
        if previous is not None:
            torch.set_rng_state(generator)
            old = copy.deepcopy(twin)
            nn.utils.vector_to_parameters(previous, old.parameters())
            before = rows(old, how)
        expected = by_hand(torch.stack([here, before]))
        previous = nn.utils.parameters_to_vector(twin.parameters()).detach().clone()

        torch.set_rng_state(generator)
        bits = [param.detach().clone() for param in model.parameters()]
        memory = [param.data_ptr() for param in model.parameters()]
        record = how(model, rule)
        assert torch.equal(torch.get_rng_state(), after)
        close(flat_gradient(list(model.parameters())), expected, 1e-9)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), bits, strict=True))
        assert [param.data_ptr() for param in model.parameters()] == memory
        for (name, found), (_, wanted) in zip(model.named_buffers(), twin.named_buffers(), strict=True):
            assert torch.equal(found, wanted), name
        assert record.backwards == (2 if "before" not in record.plan else 4)
        with torch.no_grad():
            for param, other in zip(model.parameters(), twin.parameters(), strict=True):
                param -= 0.1 * param.grad  # type: ignore[operator]
                other.copy_(param)
        model.zero_grad()


def test_parameters_that_some_losses_reach_have_an_estimator_of_their_own() -> None:
    """Private ones get their loss's own gradient, here."""
    model = build("mlp")
    rule = MoCoPlus(**RULE)
    for _ in range(2):
        model.zero_grad()
        mtopt.backward(model.losses, model, rule)
        with torch.no_grad():
            for param in model.parameters():
                param -= 0.1 * param.grad  # type: ignore[operator]
    (group,) = rule.state_dict()["groups"].values()
    assert group["state"]["_tracked"].shape == (2, sum(p.numel() for p in model.last.parameters()))  # type: ignore[operator]
    assert rule._tracked is not None
    assert rule._tracked.shape == (3, sum(p.numel() for p in model.first.parameters()))  # type: ignore[operator]
    assert len(rule.visited or []) == len(list(model.parameters()))


class Root(nn.Module):
    """A loss whose gradient is infinite at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.tensor([0.0, 1.0]))

    def losses(self) -> dict[str, torch.Tensor]:
        return {"root": self.point.abs().sqrt().sum(), "square": (self.point - 2).square().sum()}


def test_a_gradient_that_is_infinite_at_the_old_point_alone_skips_the_step() -> None:
    model, rule = Root(), MoCoPlus(**RULE)
    assert mtopt.backward(model.losses, model, rule).skipped  # here it is infinite
    assert rule.visited is None
    with torch.no_grad():
        model.point += 1.0
    assert not mtopt.backward(model.losses, model, rule).skipped
    assert rule.visited is not None
    rule.visited = [torch.tensor([0.0, 1.0])]
    gradient, state = flat_gradient([model.point]), copy.deepcopy(rule.state_dict())
    record = mtopt.backward(model.losses, model, rule)
    assert record.skipped
    assert record.reason == "non-finite gradient at the parameters of the step before: root"
    assert torch.equal(flat_gradient([model.point]), gradient)
    assert same(rule.state_dict(), state)
    with pytest.raises(mtopt.NonFiniteError, match="step before: root"):
        mtopt.backward(model.losses, model, rule, strict=True)
    assert model.point.tolist() == [1.0, 2.0]


def test_with_a_grad_scaler() -> None:
    model, plain = build("cnn"), build("cnn")
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    rule, unscaled = MoCoPlus(**RULE), MoCoPlus(**RULE)
    for _ in range(2):
        model.zero_grad()
        plain.zero_grad()
        mtopt.backward(model.losses, model, rule, scaler=scaler)
        mtopt.backward(plain.losses, plain, unscaled)
        close(flat_gradient(list(model.parameters())), 64 * flat_gradient(list(plain.parameters())), 1e-6)
        with torch.no_grad():
            for param, other in zip(model.parameters(), plain.parameters(), strict=True):
                other -= 0.1 * other.grad  # type: ignore[operator]
                param.copy_(other)


def test_a_model_that_is_autocast_is_seen_at_both_points() -> None:
    """Autocast remembers what it cast; were the first visit's weights cast once for both, Y would not follow."""
    model = nn.Linear(3, 2)
    rule = MoCoPlus(**RULE)
    inputs = torch.ones(4, 3)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mtopt.backward(lambda: list(model(inputs).float().square().mean(0)), model, rule, private="combined")
        with torch.no_grad():
            model.weight += 1.0
            model.bias += 1.0
    expected = []
    for shift in (1.0, 2.0):  # what the model is now, less what was added since
        at = {name: (param - shift).detach().requires_grad_() for name, param in model.named_parameters()}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            losses = torch.func.functional_call(model, at, (inputs,)).float().square().mean(0)
        found = [torch.autograd.grad(loss, list(at.values()), retain_graph=True) for loss in losses]
        expected.append(torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in found]))
    now, before = expected
    # Y_1 is ``before``: in the second step it cancels, whatever beta
    assert rule._tracked is not None
    close(rule._tracked, now, 2e-2)
    assert float((now - before).norm()) > 0.1 * float(now.norm())


def test_what_is_refused() -> None:
    model, rule = build("cnn"), MoCoPlus()
    with pytest.raises(ValueError, match=r"losses \['class', 'depth'\] are tensors, made once: give a callable"):
        mtopt.backward(model.losses(), model, rule)
    with pytest.raises(ValueError, match="leave features, plan and store out"):
        mtopt.backward(model.losses, model, rule, features=torch.ones(1))
    accumulator = mtopt.JacobianAccumulator(model, 2)
    accumulator.add(0, model.losses()["class"])
    with pytest.raises(ValueError, match="looks at each batch twice"):
        accumulator.combine(rule)
    mtopt.backward(model.losses, model, rule)
    with pytest.raises(ValueError, match="create one rule for each set of parameters"):
        mtopt.backward(lambda: [model.heads[0].bias.sum()], [model.heads[0].bias], rule)  # type: ignore[index,union-attr]
