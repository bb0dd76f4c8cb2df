"""GeN against closed forms: the exact step on quadratics, the objectives, schedules, the state."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mtopt
from mtopt.training import GeN
from tests.training.quadratic import Quadratic, direction_of

RULES = {
    "sgd": partial(torch.optim.SGD, lr=1e-3),
    "momentum": partial(torch.optim.SGD, lr=1e-3, momentum=0.9, weight_decay=0.05),
    "adam": partial(torch.optim.Adam, lr=1e-3, weight_decay=0.05),
    "adamw": partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.05),
}


# -- the closed form ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("points", [(-1.0, 0.0, 1.0), (-2.0, -1.0, 0.0, 1.0, 2.0), (0.0, 0.5, 1.0, 1.5)])
def test_the_first_step_is_the_exact_one(make, dtype, tolerance, points):
    """Whatever the starting rate: the search ends where the parabola says, which is exact on a quadratic."""
    for seed in range(3):
        problem = Quadratic(seed, dtype=dtype)
        optimizer = make(problem.parts)
        gen = GeN(optimizer, points=points)
        problem.differentiate()
        probe = gen.step(problem.loss)
        assert probe.accepted
        assert gen.get_last_lr() == [optimizer.param_groups[0]["lr"]] == [probe.rate]
        where = problem.w.detach().clone()
        direction = direction_of(problem, optimizer)
        moved = problem.w.detach().clone()
        with torch.no_grad():
            problem.parts[0].copy_(where)
        assert probe.rate == pytest.approx(problem.exact(direction), rel=tolerance)
        assert probe.fit > 1 - 1e-4
        # and it is the lowest point of the line
        with torch.no_grad():
            problem.parts[0].copy_(moved)
            best = float(problem.loss())
            for share in (0.9, 1.1):
                problem.parts[0].copy_(where + share * (moved - where))
                assert float(problem.loss()) >= best * (1 - 1e-6)


@pytest.mark.parametrize("make", RULES.values(), ids=RULES)
def test_a_probe_later_on(make):
    """In the steps after, with momentum, smoothing and clipping, the optimum reported is the closed form."""
    problem = Quadratic(5)
    optimizer = make(problem.parts)
    gen = GeN(optimizer, every=3, smoothing=0.8, startup=0)
    optimizer.param_groups[0]["lr"] = rate = 1e-3
    for step in range(12):
        problem.differentiate()
        probe = gen.step(problem.loss)
        assert (probe is None) == (step % 3 != 0)
        where = problem.w.detach().clone()
        direction = direction_of(problem, optimizer)
        if probe is not None:
            with torch.no_grad():
                moved = problem.w.detach().clone()
                problem.parts[0].copy_(where)
                exact = problem.exact(direction)
                problem.parts[0].copy_(moved)
            if probe.accepted:
                assert probe.optimum == pytest.approx(exact, rel=1e-7)
                rate = 0.8 * rate + 0.2 * min(max(exact, rate / 2), 2 * rate)
            else:
                assert exact <= 0
        assert gen.get_last_lr()[0] == pytest.approx(rate, rel=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(-12, 4), st.floats(-20, 20))
def test_the_scale_of_the_first_rate_and_of_the_loss_do_not_matter(seed, first, scale):
    """From any rate, for any unit of the loss, the first step is the exact one."""
    problem = Quadratic(seed, scale=10.0**scale)
    optimizer = torch.optim.SGD(problem.parts, lr=10.0 ** (first - scale))
    gen = GeN(optimizer)
    problem.differentiate()
    for _ in range(5):  # sixteen probes a step reach some ten decades
        probe = gen.step(problem.loss)
        if probe.rate == probe.optimum:
            break
    gradient = problem.hessian @ (problem.w.detach() - problem.middle)
    assert gen.get_last_lr()[0] == pytest.approx(problem.exact(gradient), rel=1e-6)


def test_rescaling_the_loss_leaves_the_path_of_sgd():
    """Bit for bit, where the first rate is rescaled by the same power of two; to rounding for any other factor."""

    def path(scale, first):
        problem = Quadratic(3, scale=scale)
        optimizer = torch.optim.SGD(problem.parts, lr=first, momentum=0.5)
        gen = GeN(optimizer, every=2, startup=3)
        for _ in range(30):
            problem.differentiate()
            gen.step(problem.loss)
            optimizer.step()
        return problem.w.detach()

    plain = path(1.0, 0.01)
    assert torch.equal(path(2.0**40, 0.01 * 2.0**-40), plain)
    torch.testing.assert_close(path(1e-7, 0.01), plain, rtol=1e-6, atol=1e-6)


def test_adam_from_four_decades_of_rates_ends_the_same():
    ends = []
    for first in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 10.0):
        problem = Quadratic(7)
        optimizer = torch.optim.Adam(problem.parts, lr=first)
        gen = GeN(optimizer)
        for _ in range(40):
            problem.differentiate()
            gen.step(problem.loss)
            optimizer.step()
        ends.append(problem.w.detach())
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=1e-6, atol=1e-6)


# -- objectives ---------------------------------------------------------------------------------------------------


def test_the_objective_is_named_or_a_mix_and_what_does_not_count_is_not_run():
    weight = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    ran = []

    def losses():
        def loss(name, target):
            ran.append(name)
            return (weight - target).square().sum()

        return {
            "retain": partial(loss, "retain", 2.0),
            mtopt.Objective("forget", sense="max"): partial(loss, "forget", 3.0),
            "far": partial(loss, "far", -8.0),
        }

    def optimum(objective):
        ran.clear()
        optimizer = torch.optim.SGD([weight], lr=0.1)
        gen = GeN(optimizer, objective=objective, every=1, startup=0)
        weight.grad = torch.tensor([-1.0], dtype=torch.float64)
        return gen.step(losses)

    assert optimum("retain").optimum == pytest.approx(1.0)
    assert set(ran) == {"retain"}
    # 3 (w - 2)^2 - (w - 3)^2 is least at 1.5
    assert optimum({"retain": 3.0, "forget": 1.0, "far": 0.0}).optimum == pytest.approx(0.5)
    assert set(ran) == {"retain", "forget"}
    # (w - 2)^2 - (w - 3)^2 + (w + 8)^2 is least at -9
    assert optimum(None).verdict == "no descent"
    with pytest.raises(mtopt.UnknownNameError, match="did you mean 'retain'"):
        optimum("retian")


def test_several_groups_keep_their_ratios():
    problem = Quadratic(4, groups=2)
    optimizer = torch.optim.SGD(
        [{"params": [problem.parts[0]], "lr": 1e-4}, {"params": [problem.parts[1]], "lr": 3e-4}]
    )
    gen = GeN(optimizer, every=1)
    for _ in range(10):
        problem.differentiate()
        gen.step(problem.loss)
        first, second = gen.get_last_lr()
        assert second == pytest.approx(3 * first, rel=1e-12)
        assert [group["lr"] for group in optimizer.param_groups] == [first, second]
        optimizer.step()
    assert first > 1e-3


# -- schedules ----------------------------------------------------------------------------------------------------

LR = torch.optim.lr_scheduler
SCHEDULES = {
    "warm-up": (lambda o: LR.LambdaLR(o, lambda t: min(1.0, (t + 1) / 5)), lambda t: min(1.0, (t + 1) / 5)),
    "from zero": (lambda o: LR.LambdaLR(o, lambda t: t / 4), lambda t: t / 4),
    "sequential": (
        lambda o: LR.SequentialLR(o, [LR.LinearLR(o, 0.25, 1.0, 3), LR.ExponentialLR(o, 0.9)], [3]),
        lambda t: 0.25 + 0.25 * t if t < 3 else 0.9 ** (t - 3),
    ),
    "cosine": (lambda o: LR.CosineAnnealingLR(o, 20), lambda t: (1 + math.cos(math.pi * t / 20)) / 2),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("capturable", [False, True])
def test_a_schedule_multiplies_what_gen_found(name, capturable):
    make, factor = SCHEDULES[name]
    problem = Quadratic(6)
    rate = torch.tensor(0.01, dtype=torch.float64) if capturable else 0.01
    optimizer = torch.optim.Adam(problem.parts, lr=rate, foreach=False)
    gen = GeN(optimizer, every=2, schedule=make(optimizer))
    own = 0.01
    for step in range(9):
        problem.differentiate()
        probe = gen.step(problem.loss)
        own = probe.rate if probe is not None else own
        assert float(optimizer.param_groups[0]["lr"]) == gen.get_last_lr()[0]
        assert gen.get_last_lr()[0] == pytest.approx(own * factor(step), rel=1e-6, abs=1e-12)
        optimizer.step()
    assert own > 0.02


def test_somebody_else_who_changes_the_rates_is_told():
    problem = Quadratic(6)
    optimizer = torch.optim.SGD(problem.parts, lr=0.01)
    gen = GeN(optimizer)
    other = LR.StepLR(optimizer, 1)
    problem.differentiate()
    gen.step(problem.loss)
    optimizer.step()
    other.step()
    with pytest.raises(ValueError, match=r"something else changes them; give a scheduler to GeN as schedule="):
        gen.step(problem.loss)


# -- state --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_state_goes_into_a_fresh_object(stop):
    def build(start):
        problem = Quadratic(8)
        optimizer = torch.optim.Adam(problem.parts, lr=start)
        schedule = LR.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 6))
        return problem, optimizer, GeN(optimizer, every=3, startup=2, schedule=schedule)

    def run(problem, optimizer, gen, steps):
        rates = []
        for _ in range(steps):
            problem.differentiate()
            gen.step(problem.loss)
            optimizer.step()
            rates += gen.get_last_lr()
        return rates

    whole = build(1e-4)
    rates = run(*whole, 15)
    first = build(1e-4)
    before = run(*first, stop)
    second = build(1e-4)
    with torch.no_grad():
        second[0].parts[0].copy_(first[0].parts[0])
    second[1].load_state_dict(first[1].state_dict())
    second[2].load_state_dict(first[2].state_dict())
    assert before + run(*second, 15 - stop) == rates
    assert torch.equal(second[0].w, whole[0].w)


def test_wrong_states():
    problem = Quadratic(8)
    gen = GeN(torch.optim.SGD(problem.parts, lr=0.1))
    state = gen.state_dict()
    with pytest.raises(mtopt.CheckpointError, match=r"lacks \['scale'\]"):
        gen.load_state_dict({key: value for key, value in state.items() if key != "scale"})
    two = GeN(torch.optim.SGD([{"params": [part]} for part in Quadratic(8, groups=2).parts], lr=0.1))
    with pytest.raises(mtopt.CheckpointError, match="2 parameter groups, found 1"):
        gen.load_state_dict(two.state_dict())
    optimizer = torch.optim.SGD(problem.parts, lr=0.1)
    with pytest.raises(mtopt.CheckpointError, match="without a schedule, found StepLR"):
        GeN(optimizer, schedule=LR.StepLR(optimizer, 3)).load_state_dict(state)
