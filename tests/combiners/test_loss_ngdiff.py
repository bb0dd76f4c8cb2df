"""LossNGDiff against the gradient of the logarithms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mtopt
from mtopt.combiners.loss_ngdiff import LossNGDiff
from mtopt.linalg import Gradients


@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.floats(1e-20, 1e20), min_size=1, max_size=4),
)
@settings(max_examples=30, deadline=None)
def test_is_the_gradient_of_the_logarithms(seed, sizes):
    point = torch.randn(6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    signs = torch.tensor([(-1.0) ** k for k in range(len(sizes))], dtype=torch.float64)
    losses = [size * sign * ((point - k) ** 2).sum() for k, (size, sign) in enumerate(zip(sizes, signs, strict=True))]
    rows = torch.stack([torch.autograd.grad(loss, point, retain_graph=True)[0] for loss in losses])
    expected = torch.autograd.grad(sum(s * (s * loss).log() for s, loss in zip(signs, losses, strict=True)), point)[0]
    torch.testing.assert_close(LossNGDiff()(rows, torch.stack(losses)), expected)


def test_for_unlearning_it_is_the_difference_of_the_two():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    retain, forget = (weight**2).sum(), (3 * weight).sum()
    objectives = {mtopt.Objective("retain"): retain, mtopt.Objective("forget", sense="max"): forget}
    record = mtopt.backward(objectives, [weight], LossNGDiff())
    torch.testing.assert_close(weight.grad, torch.tensor([2.0, 4.0]) / 5 - torch.tensor([3.0, 3.0]) / 9)
    assert record.backwards == 1


def test_a_factor_on_one_loss_changes_nothing():
    rows = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    losses = torch.tensor([2.0, -3.0], dtype=torch.float64)
    scale = torch.tensor([1e-20, 1e20], dtype=torch.float64)
    torch.testing.assert_close(LossNGDiff()(rows * scale[:, None], losses * scale), LossNGDiff()(rows, losses))


def test_preferences_follow_objectives_and_zero_losses_weigh_nothing():
    rule = LossNGDiff(preference=[0.5, 0.2, 0.3])
    assert rule.weights(torch.tensor([2.0, 0.0, -4.0])).tolist() == pytest.approx([0.25, 0.0, 0.075])
    gradients = Gradients([[torch.ones(2)], [torch.ones(2)]], objectives=[0, 2], total=3)
    outcome = rule.combine(gradients, torch.tensor([2.0, -4.0]))
    assert outcome.weights.tolist() == pytest.approx([0.25, 0.075])
    with pytest.raises(ValueError, match="preference must be"):
        LossNGDiff(preference=[0.5, 0.6])
