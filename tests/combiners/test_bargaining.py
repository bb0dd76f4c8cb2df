"""Nash-MTL, FairGrad and MUNBa: their equation, their identities, their clip."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtopt.combiners import Gradients, NGDiff
from mtopt.combiners.dualproj import DualProj
from mtopt.combiners.fairgrad import FairGrad
from mtopt.combiners.munba import MUNBa
from mtopt.combiners.nash_mtl import NashMTL
from tests.combiners.helpers import conflicting_pair, drawn_jacobian

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 8))
@settings(max_examples=60, deadline=None)
def test_each_loss_gets_the_same_weighted_descent(seed: int, rows: int) -> None:
    jacobian = drawn_jacobian(seed, rows, 20)
    rule = NashMTL()
    weights = rule.weights(jacobian @ jacobian.T)
    torch.testing.assert_close(weights * (jacobian @ rule(jacobian)), torch.ones(rows, dtype=torch.float64))
    assert rule.certificate is not None
    assert rule.certificate.residual <= 1e-10
    assert float(rule(jacobian).norm()) == pytest.approx(rows**0.5)


@given(seeds, st.integers(1, 8), st.sampled_from([0.3, 1.0, 2.0, 5.0]))
@settings(max_examples=60, deadline=None)
def test_fairgrad_solves_its_equation(seed: int, rows: int, alpha: float) -> None:
    jacobian = drawn_jacobian(seed, rows, 20)
    gramian = jacobian @ jacobian.T
    weights = FairGrad(alpha=alpha).weights(gramian)
    torch.testing.assert_close(gramian @ weights, weights ** (-1.0 / alpha), rtol=1e-8, atol=1e-10)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_two_gradients_bargain_for_the_bisector(seed: int) -> None:
    jacobian = conflicting_pair(seed)
    bisector = NGDiff()(jacobian)
    cosine = torch.cosine_similarity(jacobian[0], jacobian[1], dim=0)
    for rule in (NashMTL(), MUNBa(), FairGrad(alpha=1.0)):
        torch.testing.assert_close(rule(jacobian), bisector / torch.sqrt(1 + cosine), rtol=1e-8, atol=1e-8)


@given(seeds, st.floats(-6, 6))
@settings(max_examples=30, deadline=None)
def test_the_scale_of_one_loss_does_not_matter_to_the_bargain(seed: int, exponent: float) -> None:
    jacobian = drawn_jacobian(seed, 4, 12)
    scaled = jacobian.clone()
    scaled[1] *= 10.0**exponent
    torch.testing.assert_close(NashMTL()(scaled), NashMTL()(jacobian), rtol=1e-6, atol=1e-8)


def test_the_limit_of_fairgrad_at_alpha_zero_is_the_sum_on_the_dual_cone() -> None:
    for seed in range(5):
        jacobian = drawn_jacobian(seed, 3, 10)
        torch.testing.assert_close(FairGrad(alpha=1e-4)(jacobian), 3 * DualProj()(jacobian), rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(FairGrad(alpha=1e-4)(jacobian.abs()), jacobian.abs().sum(0), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("rule", [NashMTL, MUNBa, FairGrad])
def test_max_norm_shortens_and_never_lengthens(rule: type[NashMTL] | type[FairGrad]) -> None:
    jacobian = drawn_jacobian(1, 4, 10)
    direction = rule()(jacobian)
    norm = float(direction.norm())
    torch.testing.assert_close(rule(max_norm=norm / 3)(jacobian), direction / 3)
    torch.testing.assert_close(rule(max_norm=norm * 3)(jacobian), direction)
    with pytest.raises(ValueError, match="max_norm must be positive or None, found 0"):
        rule(max_norm=0)
    assert repr(rule(max_norm=1.0)) == f"{rule.__name__}(max_norm=1.0)"


@pytest.mark.parametrize("rule", [NashMTL(), FairGrad(), FairGrad(alpha=0.5), MUNBa()])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_degenerate_gradients_have_an_answer(rule: NashMTL | FairGrad, scale: float) -> None:
    row = scale * drawn_jacobian(0, 1, 5)
    opposite = torch.cat([row, -3 * row])
    weights = rule.weights(opposite @ opposite.T)
    assert weights.tolist() == [0.0, 0.0]
    equal = rule.weights(torch.cat([row, row]) @ torch.cat([row, row]).T)
    assert float(equal[0]) == pytest.approx(float(equal[1]))
    with_zero = torch.cat([row, torch.zeros_like(row), 2 * row])
    weights = rule.weights(with_zero @ with_zero.T)
    assert float(weights[1]) == 0.0
    assert bool((weights[[0, 2]] > 0).all())
    assert float(rule(torch.zeros(3, 4)).norm()) == 0.0


def test_a_loss_left_alone_takes_its_own_gradient_in_munba() -> None:
    rows = [[torch.tensor([3.0, 4.0])]]
    outcome = MUNBa().combine(Gradients(rows, objectives=[0], total=2), None)
    assert outcome.weights is not None
    assert outcome.weights.tolist() == [1.0]
    outcome = NashMTL().combine(Gradients(rows, objectives=[0], total=2), None)
    assert outcome.weights is not None
    torch.testing.assert_close(outcome.weights, torch.tensor([0.2], dtype=torch.float64))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_alpha_is_checked(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be finite and positive"):
        FairGrad(alpha=alpha)
