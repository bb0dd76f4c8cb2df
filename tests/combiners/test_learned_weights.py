"""UW, IMTL-L and GradNorm: against autograd through their objectives and torch's own optimizers."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mtopt
from mtopt.combiners import Context
from mtopt.combiners._learned import LearnedVector
from mtopt.combiners.gradnorm import GradNorm
from mtopt.combiners.imtl_l import IMTLL
from mtopt.combiners.uncertainty import UW


def drawn_losses(steps=40, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scales = torch.tensor([1e-2, 1.0, 30.0], dtype=torch.float64)[:count]
    return [(torch.rand(count, generator=generator, dtype=torch.float64) + 0.2) * scales for _ in range(steps)]


def learned_jointly(objective, start, lr, steps):
    """The derivatives of ``objective(losses, s)`` with respect to the losses, while Adam learns s."""
    s = torch.full((3,), start, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([s], lr=lr)
    for losses in steps:
        point = losses.clone().requires_grad_()
        adam.zero_grad()
        objective(point, s).backward()
        adam.step()
        yield point.grad


GAUSSIAN = (UW(), lambda x, s: (x / (2 * s.exp()) + s / 2).sum(), 0.0)
SOFTMAX = (UW(likelihood="softmax", start=-0.5), lambda x, s: (x * (-s).exp() + s / 2).sum(), -0.5)
factors = torch.tensor([1.0, 0.5, 0.5], dtype=torch.float64)
MIXED = (UW(likelihood=["softmax", "gaussian", "gaussian"]), lambda x, s: (factors * x * (-s).exp() + s / 2).sum(), 0.0)
BALANCE = (IMTLL(), lambda x, s: (s.exp() * x - s).sum(), 0.0)
jointly = pytest.mark.parametrize(
    ("rule", "objective", "start"), [GAUSSIAN, SOFTMAX, MIXED, BALANCE], ids=["gaussian", "softmax", "mixed", "imtl_l"]
)


@jointly
def test_weights_are_those_of_the_joint_minimisation(rule, objective, start):
    rule, steps = rule.fresh(), drawn_losses()
    for losses, expected in zip(steps, learned_jointly(objective, start, rule.lr, steps), strict=True):
        torch.testing.assert_close(rule.weights(losses), expected, rtol=1e-12, atol=0)


@jointly
def test_the_weights_settle_at_the_inverse_losses(rule, objective, start):
    rule = type(rule)(**{**rule.hyperparameters, "lr": 0.02})
    losses = torch.tensor([1e-2, 1.0, 5.0], dtype=torch.float64)
    for _ in range(700):
        weights = rule.weights(losses)
    target = 1.0 if isinstance(rule, IMTLL) else 0.5
    torch.testing.assert_close(weights * losses, torch.full((3,), target, dtype=torch.float64), rtol=5e-2, atol=0)


@pytest.mark.parametrize("rule", [UW(), IMTLL()])
def test_first_step(rule):
    losses = torch.tensor([3.0, 1e20, 1e-20], dtype=torch.float64)
    assert rule.fresh().weights(losses).tolist() == [0.5 if isinstance(rule, UW) else 1.0] * 3


@pytest.mark.parametrize("rule", [UW(), IMTLL()])
def test_a_negative_loss_is_refused_and_leaves_no_trace(rule):
    rule = rule.fresh()
    rule.weights(torch.ones(2))
    before = rule.state_dict()["state"]["_learned"]["values"]
    with pytest.raises(ValueError, match=r"needs every loss >= 0 .*found -2 for objective 1; add a constant"):
        rule.weights(torch.tensor([1.0, -2.0]))
    assert torch.equal(rule.state_dict()["state"]["_learned"]["values"], before)


@pytest.mark.parametrize("rule", [UW(), IMTLL()])
def test_a_zero_loss_or_an_absent_one_keeps_its_number(rule):
    rule = rule.fresh()
    rule.weigh(torch.tensor([4.0, 5.0, 6.0]), [0, 1, 2], 3)
    before = rule.state_dict()["state"]["_learned"]["values"]
    rule.weigh(torch.tensor([0.0, 5.0]), [0, 2], 3)
    after = rule.state_dict()["state"]["_learned"]["values"]
    assert (after == before).tolist() == [True, True, False]
    rule.weigh(torch.tensor([0.0]), [0], 3)
    assert torch.equal(rule.state_dict()["state"]["_learned"]["values"], after)


def test_uncertainty_checks_its_arguments():
    with pytest.raises(ValueError, match="likelihood must be"):
        UW(likelihood="cauchy")
    with pytest.raises(ValueError, match="likelihood must be"):
        UW(likelihood=["gaussian", "cauchy"])
    with pytest.raises(ValueError, match="likelihood has 2 entries for 3"):
        UW(likelihood=["gaussian", "softmax"]).weights(torch.ones(3))
    for rule in (UW, IMTLL, GradNorm):
        with pytest.raises(ValueError, match="lr must be positive"):
            rule(lr=0.0)


# -- GradNorm ---------------------------------------------------------------------------------------------------


def gradnorm_by_autograd(norms, losses, alpha, lr, softmax, first=None):
    """Algorithm 1 of the paper for rows of norms (steps, K) and losses (steps, K): yields the weights of each step."""
    count = norms.shape[1]
    v = torch.full((count,), 0.0 if softmax else 1.0, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([v], lr=lr, eps=1e-100)
    first = losses[0] if first is None else first
    for length, loss in zip(norms, losses, strict=True):
        w = count * v.softmax(0) if softmax else v
        yield w.detach().clone()
        grad_norms = w * length
        rate = loss / first
        target = (grad_norms.mean() * (rate / rate.mean()) ** alpha).detach()
        adam.zero_grad()
        (grad_norms - target).abs().sum().backward()
        adam.step()
        if not softmax:
            with torch.no_grad():
                v *= count / v.sum()


@pytest.mark.parametrize("parametrization", ["free", "softmax"])
@pytest.mark.parametrize("alpha", [0.0, 0.12, 1.5])
def test_gradnorm_follows_the_paper(parametrization, alpha):
    generator = torch.Generator().manual_seed(1)
    losses = torch.rand(60, 3, generator=generator, dtype=torch.float64) + 0.3
    norms = (torch.rand(60, 3, generator=generator, dtype=torch.float64) + 0.1) * torch.tensor([1.0, 5.0, 0.2])
    rule = GradNorm(alpha=alpha, parametrization=parametrization)
    expected = gradnorm_by_autograd(norms, losses, alpha, 0.025, parametrization == "softmax")
    for length, loss, weights in zip(norms, losses, expected, strict=True):
        torch.testing.assert_close(rule.weights(length, loss), weights, rtol=1e-10, atol=0)


def test_gradnorm_reads_a_gramian_and_given_first_losses():
    generator = torch.Generator().manual_seed(2)
    losses = torch.rand(10, 2, generator=generator, dtype=torch.float64) + 0.3
    rows = torch.randn(10, 2, 4, generator=generator, dtype=torch.float64)
    first = [2.0, 0.7]
    rule = GradNorm(initial_losses=first)
    expected = gradnorm_by_autograd(rows.norm(dim=2), losses, 1.5, 0.025, False, torch.tensor(first).double())
    for row, loss, weights in zip(rows, losses, expected, strict=True):
        torch.testing.assert_close(rule.weights(row @ row.T, loss), weights)
    again = eval(repr(rule))
    torch.testing.assert_close(again(rows[0], losses[0]), rows[0].sum(0))  # the first step: weights of one


@pytest.mark.parametrize("parametrization", ["free", "softmax"])
@given(c=st.floats(1e-20, 1e20), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_gradnorm_does_not_see_the_scale_of_the_gradients(parametrization, c, seed):
    generator = torch.Generator().manual_seed(seed)
    small, large = GradNorm(parametrization=parametrization), GradNorm(parametrization=parametrization)
    for _ in range(10):
        norms = torch.rand(3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 1e-6, 1e3])
        losses = torch.rand(3, generator=generator, dtype=torch.float64) + 0.1
        torch.testing.assert_close(large.weights(norms * c, losses), small.weights(norms, losses), rtol=1e-9, atol=0)


@pytest.mark.parametrize("parametrization", ["free", "softmax"])
@pytest.mark.parametrize("norms", [[0.1, 0.1, 0.1], [0.0, 0.0, 0.0], [0.7]])
def test_gradnorm_stays_at_one_where_nothing_is_to_be_balanced(parametrization, norms):
    # 0.1 + 0.1 + 0.1 is not 3 * 0.1 in floating point: rounding must not set Adam in motion
    rule = GradNorm(parametrization=parametrization)
    for _ in range(50):
        weights = rule.weights(torch.tensor(norms, dtype=torch.float64), torch.full((len(norms),), 0.3).double())
    assert weights.tolist() == [1.0] * len(norms)


@pytest.mark.parametrize("parametrization", ["free", "softmax"])
def test_gradnorm_balances_norms(parametrization):
    rule = GradNorm(alpha=0.0, parametrization=parametrization, lr=0.01)
    norms, losses = torch.tensor([1.0, 4.0], dtype=torch.float64), torch.ones(2)
    for _ in range(600):
        weights = rule.weights(norms, losses)
    assert weights.sum().item() == pytest.approx(2.0)
    assert (weights * norms).tolist() == pytest.approx([1.6, 1.6], rel=0.05)


def test_gradnorm_favours_the_task_that_lags():
    rule = GradNorm()
    rule.weights(torch.ones(2), torch.ones(2))
    for _ in range(5):
        weights = rule.weights(torch.ones(2), torch.tensor([0.1, 0.9]))
    assert weights[1] > 1 > weights[0]


def test_gradnorm_never_turns_a_weight_negative():
    rule = GradNorm(alpha=0.0, lr=0.9)
    losses = torch.ones(2)
    for _ in range(20):
        weights = rule.weights(torch.tensor([1.0, 50.0]), losses)
        assert (weights >= 0).all()
        assert weights.sum().item() == pytest.approx(2.0)
    # with alpha < 1 and a huge rate, all the weights would vanish in one step: they stay
    rule = GradNorm(alpha=0.5, lr=10.0, initial_losses=[1.0, 1.0])
    norms, losses = torch.ones(2, dtype=torch.float64), torch.tensor([1.0, 1e-3])
    for _ in range(5):
        weights = rule.weights(norms, losses)
        assert weights.isfinite().all()
        assert weights.sum().item() == pytest.approx(2.0)


def test_gradnorm_takes_the_first_loss_of_each_objective():
    rule = GradNorm()
    with rule.tell(Context((0, 2), 3)):
        rule.weights(torch.ones(2), torch.tensor([2.0, 3.0]))
    with rule.tell(Context((0, 1), 3)):
        rule.weights(torch.ones(2), torch.tensor([5.0, 7.0]))
    assert rule.state_dict()["state"]["_first"] == [2.0, 7.0, 3.0]


def test_gradnorm_checks_its_arguments():
    with pytest.raises(ValueError, match="alpha must be non-negative"):
        GradNorm(alpha=-1.0)
    with pytest.raises(ValueError, match="parametrization must be"):
        GradNorm(parametrization="log")
    with pytest.raises(ValueError, match="initial_losses must be positive"):
        GradNorm(initial_losses=[1.0, 0.0])
    with pytest.raises(ValueError, match="initial_losses has 1 entries for 2"):
        GradNorm(initial_losses=[1.0]).weights(torch.ones(2), torch.ones(2))
    with pytest.raises(ValueError, match="give losses"):
        GradNorm().weights(torch.ones(2))
    with pytest.raises(ValueError, match=r"needs every loss >= 0 .*objective 1"):
        GradNorm().weights(torch.ones(2), torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match=r"first loss .*objective 0; give initial_losses"):
        GradNorm().weights(torch.ones(2), torch.tensor([0.0, 1.0]))
    rule = GradNorm(initial_losses=[1.0, 1.0])
    assert rule.weights(torch.ones(2), torch.zeros(2)).tolist() == [1.0, 1.0]
    assert rule.weights(torch.ones(2), torch.zeros(2)).tolist() == [1.0, 1.0]


def test_gradnorm_in_a_step():
    theta = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    rule = GradNorm()
    for step in range(3):
        theta.grad = None
        record = mtopt.backward([theta.square().sum(), (theta - 1).square().sum() * 5], [theta], rule)
        a, b = record.weights.values()
        torch.testing.assert_close(theta.grad, (2 * a * theta + 10 * b * (theta - 1)).detach())
        assert (a, b) == (1.0, 1.0) if step == 0 else a > 1 > b


# -- state ------------------------------------------------------------------------------------------------------


def call(rule, losses):
    return rule.weights(losses + 0.5, losses) if isinstance(rule, GradNorm) else rule.weights(losses)


@pytest.mark.parametrize(
    "rule", [UW(), IMTLL(lr=0.1, start=0.2), GradNorm(), GradNorm(parametrization="softmax", alpha=0.5)], ids=repr
)
@pytest.mark.parametrize("at", [0, 1, 7])
def test_resumes_bit_for_bit_in_a_fresh_rule(rule, at, tmp_path):
    steps = drawn_losses(15)
    whole = rule.fresh()
    expected = [call(whole, losses) for losses in steps]
    part = rule.fresh()
    for losses in steps[:at]:
        call(part, losses)
    saved = part.state_dict()
    torch.save(saved, tmp_path / "rule.pt")
    call(part, steps[at])  # what goes on after saving must not reach what was saved
    for state in (saved, torch.load(tmp_path / "rule.pt", weights_only=True)):
        resumed = eval(repr(rule))
        resumed.load_state_dict(state)
        for losses, weights in zip(steps[at:], expected[at:], strict=True):
            assert torch.equal(call(resumed, losses), weights)
    for twin in (copy.deepcopy(part), pickle.loads(pickle.dumps(part))):
        for losses, weights in zip(steps[at + 1 :], expected[at + 1 :], strict=True):
            assert torch.equal(call(twin, losses), weights)
    used = rule.fresh()
    call(used, steps[3])
    used.load_state_dict(rule.fresh().state_dict())  # back to the beginning
    assert torch.equal(call(used, steps[0]), expected[0])


def test_the_learning_rate_is_the_rules_and_not_the_checkpoints():
    slow, fast = IMTLL(lr=1e-3), IMTLL(lr=0.1)
    slow.weights(torch.full((1,), 5.0))
    fast.load_state_dict(slow.state_dict())
    before = fast.weights(torch.full((1,), 5.0)).log()
    after = fast.weights(torch.full((1,), 5.0)).log()
    assert (before - after).item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("rule", [UW(), IMTLL(), GradNorm()])
def test_another_number_of_objectives_is_refused(rule):
    rule = rule.fresh()
    call(rule, torch.ones(2))
    with pytest.raises(ValueError, match="learned the weights of 2 objectives and is given 3"):
        call(rule, torch.ones(3))


def test_learned_vector_sgd_and_decay():
    vector = LearnedVector(2.0, lr=0.1, weight_decay=0.5, optimizer="sgd")
    assert len(vector) == 0
    assert vector.read(3).tolist() == [2.0, 2.0, 2.0]
    vector.descend(np.array([1.0, -1.0]), [0, 2])
    assert vector.read(3).tolist() == pytest.approx([2 - 0.1 * (1 + 1), 2.0, 2 - 0.1 * (-1 + 1)])
    assert len(vector) == 3
    other = LearnedVector(0.0, lr=0.1, weight_decay=0.5, optimizer="sgd")
    other.state = vector.state
    assert other.read(3).tolist() == vector.read(3).tolist()


@pytest.mark.parametrize("rule", [UW(), IMTLL()])
def test_in_a_step_with_a_head_a_maximised_and_an_absent_loss(rule):
    rule = rule.fresh()
    theta = torch.tensor([1.0, 2.0], requires_grad=True)
    record = mtopt.backward({"a": theta.square().sum(), "b": None, "c": theta[0].exp()}, [theta], rule)
    weight = 0.5 if isinstance(rule, UW) else 1.0
    assert record.weights == {"a": weight, "c": weight}
    torch.testing.assert_close(theta.grad, weight * torch.tensor([2.0 + math.e, 4.0]))
    with pytest.raises(ValueError, match="objective to maximise"):
        mtopt.backward({mtopt.Objective("up", sense="max"): theta.square().sum()}, [theta], rule.fresh())
