"""What keeps GeN safe: the gates, the search of the first rate, and arguments that are refused."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtopt.training import GeN
from mtopt.training.gen._fit import fit_parabola
from mtopt.training.gen._search import MOST_PROBES, search_scale
from tests.training.quadratic import Quadratic

FLOAT64 = torch.finfo(torch.float64).eps

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
    with pytest.raises(ValueError, match="every learning rate of optimizer is 0"):
        GeN(torch.optim.SGD(parts, lr=0.0))
    optimizer = torch.optim.SGD(parts, lr=0.1)
    other = torch.optim.SGD(Quadratic().parts, lr=0.1)
    with pytest.raises(ValueError, match="another optimizer"):
        GeN(optimizer, schedule=torch.optim.lr_scheduler.StepLR(other, 3))
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
