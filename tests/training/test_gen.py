"""GeN against closed forms: the exact step on quadratics, the gates, the search, the state."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import mtopt
from mtopt.training import GeN
from mtopt.training._gen_fit import fit_parabola
from mtopt.training._gen_search import MOST_PROBES, search_scale

FLOAT64 = torch.finfo(torch.float64).eps


class Quadratic:
    """``L(w) = scale (w - m)' H (w - m) / 2 + offset``."""

    def __init__(self, seed=0, size=6, dtype=torch.float64, offset=1.0, scale=1.0, groups=1):
        generator = torch.Generator().manual_seed(seed)
        root = torch.randn(size, size, generator=generator, dtype=torch.float64)
        self.hessian = (scale * (root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64))).to(dtype)
        self.middle = torch.randn(size, generator=generator, dtype=torch.float64).to(dtype)
        start = torch.randn(size, generator=generator, dtype=torch.float64).to(dtype) * 3
        self.parts = [nn.Parameter(part.clone()) for part in start.chunk(groups)]
        self.offset = offset * scale

    @property
    def w(self):
        return torch.cat(list(self.parts))

    def loss(self):
        away = self.w - self.middle
        return 0.5 * away @ self.hessian @ away + self.offset

    def differentiate(self):
        for part in self.parts:
            part.grad = None
        self.loss().backward()

    def exact(self, direction):
        """``g.d / d.Hd`` in float64."""
        hessian, d = self.hessian.double(), direction.double()
        gradient = hessian @ (self.w.detach() - self.middle).double()
        return float(gradient @ d / (d @ hessian @ d))


def direction_of(problem, optimizer):
    """The optimizer's update divided by its rate, found by taking it on a copy of everything."""
    before = problem.w.detach().clone()
    rate = float(optimizer.param_groups[0]["lr"])
    optimizer.step()
    return (before - problem.w.detach()) / rate


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


# -- gates --------------------------------------------------------------------------------------------------------


def fitted(function, points=(-1.0, 0.0, 1.0), least_fit=0.99, unit=FLOAT64):
    return fit_parabola(points, [function(point) for point in points], least_fit=least_fit, unit=unit)


def test_the_gates():
    accepted = fitted(lambda s: 2 + (s - 3) ** 2)
    assert (accepted.verdict, accepted.rises) == ("accepted", False)
    assert accepted.optimum == pytest.approx(3)
    assert (accepted.slope, accepted.curvature) == pytest.approx((6, 2))
    assert fitted(lambda s: (s + 3) ** 2).verdict == "no descent"
    assert fitted(lambda s: -((s + 3) ** 2)).verdict == "no curvature"
    assert fitted(lambda s: -s).verdict == "no curvature"
    assert fitted(lambda s: math.inf if s > 0 else 1.0).verdict == "not finite"
    assert fitted(lambda s: math.nan if s < 0 else 1.0).rises
    assert fitted(lambda s: 1e-20 * (s - 1) ** 2).optimum == pytest.approx(1)


def test_the_fit_says_nothing_with_three_points_and_something_from_four_on():
    def bent(s):
        return math.exp(3 * s) - 12 * s

    assert fitted(bent).verdict == "accepted"
    assert fitted(bent).fit == pytest.approx(1)
    for points in [(-1.0, 0.0, 1.0, 2.0), (-2.0, -1.0, 0.0, 1.0, 2.0)]:
        refused = fitted(bent, points)
        # an independent least squares: two parameters, no intercept
        s = np.array(points)
        rise = np.array([bent(x) - bent(0) for x in points])
        design = np.c_[-s, s**2 / 2]
        best = np.linalg.inv(design.T @ design) @ design.T @ rise
        expected = 1 - np.square(rise - design @ best).sum() / np.square(rise - rise.mean()).sum()
        assert refused.fit == pytest.approx(expected)
        assert expected < 0.99
        assert (refused.slope, refused.curvature) == pytest.approx(tuple(best))
        assert refused.verdict in ("poor fit", "no descent")


def test_a_refused_probe_leaves_the_rate_and_a_loss_that_is_not_finite_halves_it():
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    gen = GeN(optimizer, every=1, startup=0)
    weight.grad = torch.tensor([1.0])
    assert gen.step(lambda: -float(weight)).verdict == "no descent"
    assert gen.step(lambda: -(float(weight) ** 2) + 9 * float(weight)).verdict == "no curvature"
    assert gen.get_last_lr() == [0.5]
    assert gen.step(lambda: math.nan).verdict == "not finite"
    assert gen.get_last_lr() == [0.25]
    assert gen.last_probe.previous == 0.5


def test_no_gradient_and_no_loss():
    weight = nn.Parameter(torch.tensor([1.0]))
    for startup in (0, 3):
        optimizer = torch.optim.SGD([weight], lr=0.5)
        gen = GeN(optimizer, every=1, startup=startup)
        weight.grad = None
        assert gen.step(lambda: float(weight) ** 2).verdict == "no update"
        weight.grad = torch.tensor([1.0])
        assert gen.step(lambda: {"a": None, "b": weight.square().sum()}).verdict == "accepted"
        gen.objective = "a"
        rate = gen.get_last_lr()
        probe = gen.step(lambda: {"a": None, "b": weight.square().sum()})
        assert probe.verdict == "no loss"
        assert probe.losses == ()
        assert gen.get_last_lr() == rate


# -- the search ---------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.floats(-25, 9), st.sampled_from(["parabola", "line", "huber", "cosh", "wall"]))
def test_the_search_ends_near_the_lowest_point(decades, shape):
    """From 25 decades below to 9 above, on functions that are no parabola, too."""
    functions = {
        "parabola": lambda x: (x - 1) ** 2,
        "line": lambda x: 0.5 * (math.sqrt((x - 1) ** 2 + 0.04)),
        "huber": lambda x: (x - 1) ** 2 if abs(x - 1) < 1 else 2 * abs(x - 1) - 1,
        "cosh": lambda x: math.cosh(x - 1) if abs(x - 1) < 300 else math.inf,
        "wall": lambda x: (x - 1) ** 2 if x < 3 else math.nan,
    }
    function = functions[shape]

    def measure(scale):
        losses = [function(-scale), function(0.0), function(scale)]
        return fit_parabola((-1.0, 0.0, 1.0), losses, least_fit=0.99, unit=FLOAT64)

    scale = 10.0**decades
    for _ in range(6):
        found = search_scale(measure, scale)
        assert found.count <= MOST_PROBES
        if found.parabola.verdict == "accepted" and 0.5 <= found.parabola.optimum <= 2:
            break
        scale = found.scale
    assert 0.3 < found.scale < 2.5
    # three points do not see that a line is no parabola, which may then be left on the far side
    assert function(found.scale) < function(0.0) or shape == "line"


def test_a_direction_that_never_descends_costs_at_most_half_the_rate():
    def measure(scale):
        return fitted(lambda s: (scale * s + 1) ** 2)

    found = search_scale(measure, 1.0)
    assert (found.scale, found.count) == (0.5, MOST_PROBES)


def test_a_loss_that_rises_less_than_rounding_is_not_one_that_falls():
    """In float32, where the rise is not seen at short steps: the direction never descends, and the rate is halved."""

    def measure(scale):
        losses = [float(np.float32(0.464 + 0.1 * scale * s + (scale * s) ** 2)) for s in (-1, 0, 1)]
        return fit_parabola((-1.0, 0.0, 1.0), losses, least_fit=0.99, unit=float(np.finfo(np.float32).eps))

    for start in (1e-3, 0.2, 50.0):
        assert search_scale(measure, start).scale == start / 2
    assert search_scale(measure, 1e-9).scale == 1e-9  # nothing is seen there, and further up it rises


def test_the_search_stays_where_the_loss_falls_when_no_parabola_fits():
    """Concave, and then a wall: the answer is within a factor 2 of the wall, on the side where it falls."""

    def measure(scale):
        return fitted(lambda s: 10.0 if scale * s > 1 else -((scale * s + 10) ** 2))

    found = search_scale(measure, 1e-4)
    assert 0.5 <= found.scale <= 1.0


def test_the_start_up_phase_ends_after_a_row_and_can_be_switched_off():
    problem = Quadratic(2)
    problem.hessian = torch.eye(6, dtype=torch.float64) + 0.1 * problem.hessian
    optimizer = torch.optim.SGD(problem.parts, lr=1e-5)
    gen = GeN(optimizer, startup=4, every=1000)
    searching = []
    for _ in range(8):
        problem.differentiate()
        probe = gen.step(problem.loss)
        searching.append(probe is not None and probe.searching)
        optimizer.step()
    assert searching == [True] * 5 + [False] * 3  # the search of the first step, and four that confirm it
    assert gen.last_probe is None
    off = GeN(torch.optim.SGD(problem.parts, lr=1e-5), startup=0)
    assert not off.step(problem.loss).searching
    assert off.get_last_lr()[0] <= 1.1e-5


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


# -- arguments ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "every must be a positive int, found 0"),
        ({"smoothing": 1.0}, ValueError, r"smoothing must be in \[0, 1\), found 1.0"),
        ({"points": (-1.0, 1.0)}, ValueError, "points must be three or more"),
        ({"points": (-1.0, -2.0, 0.0)}, ValueError, "points must be three or more"),
        ({"fit": 1.5}, ValueError, r"fit must be in \[0, 1\)"),
        ({"startup": -1}, ValueError, "startup must be an int, 0 for no start-up"),
        ({"startup": True}, ValueError, "startup must be an int, 0 for no start-up"),
        ({"objective": 3}, TypeError, "objective must be the name of a loss"),
        ({"objective": {"a": math.nan}}, ValueError, "finite factor, found nan for 'a'"),
        ({"batches": []}, TypeError, "batches must be a list of batches"),
        ({"schedule": "cosine"}, TypeError, "schedule must be a torch.optim.lr_scheduler.LRScheduler"),
    ],
)
def test_wrong_arguments(options, error, message):
    optimizer = torch.optim.SGD(Quadratic().parts, lr=0.1)
    with pytest.raises(error, match=message):
        GeN(optimizer, **options)


def test_wrong_optimizers_and_closures():
    parts = Quadratic().parts
    with pytest.raises(TypeError, match="found list"):
        GeN(parts)
    with pytest.raises(TypeError, match="LBFGS"):
        GeN(torch.optim.LBFGS(parts))
    with pytest.raises(ValueError, match="rates of 0 only"):
        GeN(torch.optim.SGD(parts, lr=0.0))
    optimizer = torch.optim.SGD(parts, lr=0.1)
    other = torch.optim.SGD(Quadratic().parts, lr=0.1)
    with pytest.raises(ValueError, match="another optimizer"):
        GeN(optimizer, schedule=LR.StepLR(other, 3))
    parts[0].grad = torch.ones_like(parts[0])
    with pytest.raises(TypeError, match="losses must be a sequence or a mapping of scalar tensors, found NoneType"):
        GeN(optimizer).step(lambda: None)
    with pytest.raises(ValueError, match="objective='retain' picks losses by name, and the closure returned a single"):
        GeN(optimizer, objective="retain").step(lambda: 1.0)


def test_points_are_copied():
    points = [-1.0, 0.0, 1.0]
    gens = [GeN(torch.optim.SGD(Quadratic().parts, lr=0.1), points=points) for _ in range(2)]
    points.reverse()
    assert all(gen.points == (-1.0, 0.0, 1.0) for gen in gens)
    assert len(list(itertools.chain(*(gen.points for gen in gens)))) == 6
