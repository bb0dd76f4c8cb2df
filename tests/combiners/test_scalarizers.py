"""The rules that are the gradient of a function of the losses: against autograd and finite differences of it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mtopt
from mtopt.combiners import ASF, PBI, Tchebycheff
from mtopt.combiners.cosmos import COSMOS
from mtopt.combiners.geometric_mean import GLS
from mtopt.combiners.scale_invariant import SI
from mtopt.combiners.smooth_tchebycheff import STCH

P = [0.2, 0.5, 0.3]
Z = [-0.5, 0.1, -2.0]
NADIR = [0.5, 2.0, 1.0]
p, z, nadir = (torch.tensor(x, dtype=torch.float64) for x in (P, Z, NADIR))
third, zero = torch.full((3,), 1 / 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)


def pbi(theta):
    def value(x, p, z):
        v, u = x - z, p / p.norm()
        along = v @ u
        return along + theta * (v - along * u).norm()

    return value


def cosmos(penalty):
    return lambda x, p, z: p @ x - penalty * torch.cosine_similarity(p, x - z, dim=0)


def stch(mu):
    return lambda x, p, z: mu * torch.logsumexp(p * (x - z) / mu, 0)


def stch_log(mu):
    return lambda x, p, n: len(x) * mu * torch.logsumexp((x / n).log() / mu, 0)


# every scalarization, written down once more, beside the rule that should be its gradient, and its p and z (or nadir)
SCALARIZATIONS = {
    "si": (SI(), lambda x, p, z: x.log().sum(), third, zero),
    "gls": (GLS(), lambda x, p, z: x.prod() ** (1 / len(x)), third, zero),
    "tchebycheff": (Tchebycheff(preference=P, reference=Z), lambda x, p, z: (p * (x - z)).max(), p, z),
    "tchebycheff by default": (Tchebycheff(), lambda x, p, z: (p * x).max(), third, zero),
    "asf": (ASF(preference=P, reference=Z), lambda x, p, z: ((x - z) / p).max(), p, z),
    "asf by default": (ASF(), lambda x, p, z: (x / p).max(), third, zero),
    "aasf": (
        ASF(preference=P, reference=Z, rho=0.1),
        lambda x, p, z: ((x - z) / p).max() + 0.1 * ((x - z) / p).sum(),
        p,
        z,
    ),
    "pbi": (PBI(preference=P, reference=Z), pbi(5.0), p, z),
    "pbi by default": (PBI(), pbi(5.0), third, zero),
    "pbi gentle": (PBI(preference=P, theta=0.3), pbi(0.3), p, zero),
    "cosmos": (COSMOS(preference=P, reference=Z, penalty=8.0), cosmos(8.0), p, z),
    "cosmos by default": (COSMOS(), cosmos(2.0), third, zero),
    "stch": (STCH(preference=P, reference=Z, mu=0.3), stch(0.3), p, z),
    "stch by default": (STCH(), stch(0.01), third, zero),
    "stch log": (STCH(log=True, nadir=NADIR), stch_log(1.0), third, nadir),
    "stch log, sharp": (STCH(log=True, nadir=NADIR, mu=0.2), stch_log(0.2), third, nadir),
}
cases = pytest.mark.parametrize(("rule", "value", "p", "z"), SCALARIZATIONS.values(), ids=SCALARIZATIONS.keys())
positive = st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3, unique=True)


@cases
@given(losses=positive)
@settings(max_examples=15, deadline=None)
def test_weights_are_the_gradient_of_the_scalarization(rule, value, p, z, losses):
    point = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    assume(torch.cosine_similarity(p, point - z, dim=0) < 1 - 1e-6)  # on the ray PBI has a kink
    (expected,) = torch.autograd.grad(value(point, p, z), point)
    found = rule.weights(point.detach())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@cases
def test_weights_are_the_slope_of_the_scalarization(rule, value, p, z):
    point = torch.tensor([0.7, 1.9, 0.4], dtype=torch.float64)
    step = 1e-6 * torch.eye(3, dtype=torch.float64)
    slope = torch.stack([(value(point + e, p, z) - value(point - e, p, z)) / 2e-6 for e in step])
    torch.testing.assert_close(rule.weights(point), slope, rtol=1e-6, atol=1e-8)


@cases
def test_one_backward_gives_the_gradient_of_the_scalarization(rule, value, p, z):
    torch.manual_seed(0)
    theta = torch.randn(5, dtype=torch.float64, requires_grad=True)
    matrix = torch.randn(3, 5, dtype=torch.float64)

    def losses():
        return (matrix @ theta).square() + 0.1

    (expected,) = torch.autograd.grad(value(losses(), p, z), theta)
    mtopt.backward(list(losses()), [theta], rule)
    torch.testing.assert_close(theta.grad, expected)
    rows = torch.autograd.functional.jacobian(lambda t: (matrix @ t).square() + 0.1, theta.detach())
    torch.testing.assert_close(rule(rows, losses().detach()), expected)


@cases
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_repr_and_fresh(rule, value, p, z, dtype):
    losses = torch.tensor([0.75, 2.0, 0.5], dtype=dtype)
    weights = rule.weights(losses)
    assert weights.dtype == dtype
    assert weights.isfinite().all()
    again = eval(repr(rule))
    assert repr(again) == repr(rule) == repr(rule.fresh())
    torch.testing.assert_close(again.weights(losses), weights, rtol=0, atol=0)


@cases
def test_an_absent_loss_drops_out(rule, value, p, z):
    present = [0, 2]
    point = torch.tensor([0.7, 0.4], dtype=torch.float64, requires_grad=True)
    # the preference of the absent one is not handed out to the others
    (expected,) = torch.autograd.grad(value(point, p[present], z[present]), point)
    torch.testing.assert_close(rule.fresh().weigh(point.detach(), present, 3), expected)


@pytest.mark.parametrize("rule", [SI(), GLS(), STCH(log=True, nadir=[1.0, 1.0]), STCH(log=True)])
@pytest.mark.parametrize("bad", [0.0, -0.3])
def test_a_loss_without_a_logarithm_is_refused_by_name(rule, bad):
    rule = rule.fresh()
    with pytest.raises(ValueError, match=rf"needs every loss > 0 .*found {bad:g} for objective 1.*constant"):
        rule.weights(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match="for objective 2"):  # which objective, not which row
        rule.weigh(torch.tensor([1.0, bad]), [0, 2], 3)


ANY_SIGN = [Tchebycheff(), ASF(), PBI(), COSMOS(), STCH()]


@pytest.mark.parametrize("rule", [SI(), GLS(), *ANY_SIGN])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_losses_are_refused(rule, bad):
    with pytest.raises(mtopt.NonFiniteError, match="NaN or infinity"):
        rule.weights(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match="shape"):
        rule.weights(torch.ones(2, 2))
    with pytest.raises(ValueError, match="give losses"):
        rule(torch.eye(2))


@pytest.mark.parametrize("rule", ANY_SIGN)
@given(losses=st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_any_losses_get_finite_weights_whatever_their_order(rule, losses):
    point = torch.tensor(losses, dtype=torch.float64)
    weights = rule.weights(point)
    assert weights.isfinite().all()
    order = torch.arange(len(losses)).flip(0)
    torch.testing.assert_close(rule.weights(point[order]), weights[order], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (SI(), [0.5]),
        (GLS(), [1.0]),
        (Tchebycheff(), [1.0]),
        (ASF(rho=0.25), [1.25]),
        (PBI(), [1.0]),
        (COSMOS(), [1.0]),
        (STCH(), [1.0]),
        (STCH(log=True, nadir=[4.0]), [0.5]),
    ],
)
def test_one_objective_is_its_own_gradient(rule, expected):
    assert rule.weights(torch.tensor([2.0], dtype=torch.float64)).tolist() == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize(
    ("rule", "factor"),
    [
        (SI(), 1 / 2.0),
        (GLS(), 1 / 4),
        (Tchebycheff(), 1 / 16),
        (ASF(), 1.0),
        (PBI(), 0.5),
        (COSMOS(), 1 / 4),
        (STCH(), 1 / 16),
        (STCH(log=True, nadir=[1.0] * 4), 1 / 2.0),
    ],
)
def test_length_of_the_step_for_equal_losses(rule, factor):
    # what the docstrings promise: the direction of K = 4 equal losses of 2, as a factor on the sum of the gradients
    losses = torch.full((4,), 2.0, dtype=torch.float64)
    torch.testing.assert_close(rule.weights(losses), torch.full((4,), factor, dtype=torch.float64))


@pytest.mark.parametrize("rule", [SI(), GLS()])
@given(losses=positive, c=st.floats(1e-20, 1e20), k=st.integers(0, 2))
@settings(max_examples=25, deadline=None)
def test_scale_invariant_rules(rule, losses, c, k):
    assert rule.scale_invariant
    factors = np.ones(3)
    factors[k] = c
    point = np.array(losses)
    before = rule.weights(torch.from_numpy(point)).numpy()
    after = rule.weights(torch.from_numpy(point * factors)).numpy() * factors  # the rows carry the factors, too
    np.testing.assert_allclose(after / np.linalg.norm(after), before / np.linalg.norm(before), rtol=1e-12)


@pytest.mark.parametrize("rule", [Tchebycheff(preference=P), ASF(preference=P, rho=0.1), PBI(preference=P)])
@given(losses=positive, exponent=st.integers(-60, 60))
@settings(max_examples=25, deadline=None)
def test_homogeneous_scalarizations_do_not_see_a_common_scale(rule, losses, exponent):
    point = torch.tensor(losses, dtype=torch.float64)
    torch.testing.assert_close(rule.weights(point * 2.0**exponent), rule.weights(point), rtol=1e-12, atol=0)


def test_geometric_mean_neither_overflows_nor_underflows():
    for size in (1e-300, 1e300):
        losses = torch.full((50,), size, dtype=torch.float64)
        torch.testing.assert_close(GLS().weights(losses), torch.full((50,), 0.02, dtype=torch.float64))


def test_losses_that_tie_share_the_weight():
    losses = torch.tensor([2.0, 1.0, 2.0], dtype=torch.float64)
    assert Tchebycheff().weights(losses).tolist() == pytest.approx([1 / 6, 0, 1 / 6])
    assert ASF().weights(losses).tolist() == pytest.approx([1.5, 0, 1.5])


def test_an_objective_without_preference_takes_no_part_in_tchebycheff():
    losses = torch.tensor([-3.0, 7.0], dtype=torch.float64)
    assert Tchebycheff(preference=[1.0, 0.0]).weights(losses).tolist() == [1.0, 0.0]
    alone = torch.tensor([7.0], dtype=torch.float64)
    for rule in (Tchebycheff(preference=[1.0, 0.0]), PBI(preference=[1.0, 0.0]), COSMOS(preference=[1.0, 0.0])):
        assert rule.weigh(alone, [1], 2).tolist() == [0.0]


@pytest.mark.parametrize("size", [1e-20, 1e-3, 1.0, 1e20])
def test_on_the_ray_the_penalties_are_silent(size):
    # the deviation from the ray is rounding error here, which a division by its own length would make a direction
    losses = p * size * (1 + 1e-16)
    torch.testing.assert_close(PBI(preference=P).weights(losses), p / p.norm())
    torch.testing.assert_close(COSMOS(preference=P).weights(losses), p)
    torch.testing.assert_close(PBI(preference=P).weights(zero), p / p.norm())
    torch.testing.assert_close(COSMOS(preference=P).weights(zero), p)


def test_cosmos_reads_a_preference_set_between_steps():
    rule, losses = COSMOS(penalty=0.0), torch.ones(2, dtype=torch.float64)
    rule.preference = torch.tensor([0.9, 0.1])
    torch.testing.assert_close(rule.weights(losses), torch.tensor([0.9, 0.1]).double())
    rule.preference = [0.9, 0.3]
    with pytest.raises(ValueError, match="sum to one"):
        rule.weights(losses)


def test_smooth_tchebycheff_lies_between_tchebycheff_and_linear():
    losses = torch.tensor([1.0, 2.5, 1.7], dtype=torch.float64)
    torch.testing.assert_close(
        STCH(preference=P, mu=1e-4).weights(losses), Tchebycheff(preference=P).weights(losses), rtol=0, atol=1e-12
    )
    torch.testing.assert_close(STCH(preference=P, mu=1e9).weights(losses), p / 3)


@pytest.mark.parametrize("rule", [ASF(preference=P), PBI(preference=P, theta=20.0)])
def test_the_minimiser_lies_on_the_ray_of_the_preference(rule):
    # the front is a part of the sphere: concave, where a weighted sum finds the ends only
    theta = torch.tensor([0.5, 0.5], dtype=torch.float64)
    for step in range(1500):
        last = (1.5 - theta.square().sum()).sqrt()
        rows = torch.cat([torch.eye(2, dtype=torch.float64), -theta[None] / last])
        losses = torch.cat([theta, last[None]])
        slope = rule.weights(losses) @ rows
        theta = theta - 0.02 / (1 + step / 20) * slope / slope.norm()
    ratio = losses / p
    torch.testing.assert_close(ratio / ratio.mean(), torch.ones(3, dtype=torch.float64), rtol=0, atol=2e-2)


def test_smooth_tchebycheff_warm_up_and_nadir():
    rule = STCH(log=True, window=2, warmup=1, mu=0.5)
    rng = np.random.default_rng(0)
    seen = [torch.from_numpy(rng.uniform(0.5, 2, 3)) for _ in range(6)]
    for losses in seen[:4]:  # one epoch of warm-up and one to measure: the gradient of sum log l
        torch.testing.assert_close(rule.weights(losses), SI().weights(losses))
    nadir = ((seen[2] + seen[3]) / 2).tolist()
    fixed = STCH(log=True, nadir=nadir, mu=0.5)
    for losses in seen[4:]:
        torch.testing.assert_close(rule.weights(losses), fixed.weights(losses))


def test_an_objective_unseen_in_the_measuring_epoch_takes_its_next_loss_as_nadir():
    rule = STCH(log=True, window=1, warmup=0)
    rule.weigh(torch.tensor([2.0, 3.0]), [0, 1], 3)
    first = torch.tensor([1.0, 1.0, 5.0], dtype=torch.float64)
    later = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    fixed = STCH(log=True, nadir=[2.0, 3.0, 5.0])
    for losses in (first, later):
        torch.testing.assert_close(rule.weigh(losses, [0, 1, 2], 3), fixed.weights(losses))


def test_smooth_tchebycheff_resumes(tmp_path):
    losses = [torch.rand(2, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) + 0.1 for k in range(9)]
    whole, part = STCH(log=True, window=2, warmup=1), STCH(log=True, window=2, warmup=1)
    expected = [whole.weights(x) for x in losses]
    for x in losses[:3]:
        part.weights(x)
    torch.save(part.state_dict(), tmp_path / "rule.pt")
    part = part.fresh()
    part.load_state_dict(torch.load(tmp_path / "rule.pt", weights_only=True))
    for x, weights in zip(losses[3:], expected[3:], strict=True):
        assert torch.equal(part.weights(x), weights)
    with pytest.raises(ValueError, match="one rule for each problem"):
        part.weights(torch.ones(3))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Tchebycheff(preference=[0.5, 0.6]), "sum to one"),
        (lambda: Tchebycheff(reference=[0.0, math.inf]), "reference must be a finite vector"),
        (lambda: ASF(preference=[1.0, 0.0]), "must be positive"),
        (lambda: ASF(rho=-1.0), "rho must be non-negative"),
        (lambda: PBI(theta=-1.0), "theta must be non-negative"),
        (lambda: COSMOS(penalty=-1.0), "penalty must be non-negative"),
        (lambda: STCH(mu=0.0), "mu must be positive"),
        (lambda: STCH(log=True, preference=[0.5, 0.5]), "log=True has no preference"),
        (lambda: STCH(nadir=[1.0]), "goes with log=True only"),
        (lambda: STCH(log=True, nadir=[1.0, 0.0]), "nadir must be positive"),
        (lambda: STCH(window=0), "window must be a whole number"),
        (lambda: STCH(warmup=-1), "warmup must be a whole number"),
        (lambda: Tchebycheff(reference=[0.0]).weights(torch.ones(2)), "reference has 1 entries for 2 objectives"),
        (lambda: Tchebycheff(preference=[1.0]).weights(torch.ones(2)), "preference has 1 entries for 2 objectives"),
        (lambda: STCH(log=True, nadir=[1.0]).weights(torch.ones(2)), "nadir has 1 entries for 2 objectives"),
    ],
)
def test_wrong_arguments_are_named(build, words):
    with pytest.raises(ValueError, match=words):
        build()
