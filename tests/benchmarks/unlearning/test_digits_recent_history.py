"""Mini-Unlearning on the digits, against gradient descent on the retain set from the same model."""

import torch
from torch.nn.utils import parameters_to_vector

from benchmarks.unlearning.digits.comparison import METHODS
from benchmarks.unlearning.digits.ensemble import Ensemble, network
from benchmarks.unlearning.digits.recent_history import mini_unlearning, product_with, sum_gradient
from tests.benchmarks.unlearning.digits_models import CLASS

WIDTH = 16


def start():
    return Ensemble([network(seed, WIDTH) for seed in range(2)])


def retrained(steps, rate):
    """Full-batch gradient descent on what is retained, by autograd alone."""
    descended = []
    for place in range(2):
        model = start().member(place)
        for _ in range(steps):
            loss = torch.nn.functional.cross_entropy(model(CLASS.retain.images), CLASS.retain.labels)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= rate * gradient
        descended.append(model)
    return Ensemble(descended)


def distance(one, other):
    return sum((mine - theirs).square().sum() for mine, theirs in zip(one.tensors, other.tensors, strict=True)).sqrt()


def test_one_step_is_a_step_of_retraining():
    found = mini_unlearning(start(), CLASS, seeds=range(2), learning_rate=0.3, keep=1)
    for mine, theirs in zip(found.tensors, retrained(1, 0.3).tensors, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_more_steps_stay_closer_to_retraining_the_shorter_they_are():
    """The Hessian brings the stored gradients to where the model is, so the error is of a higher order in the rate than
    the way that both have gone."""
    shares = []
    for rate in (0.1, 0.02):
        found, goal = mini_unlearning(start(), CLASS, seeds=range(2), learning_rate=rate, keep=4), retrained(4, rate)
        shares.append(distance(found, goal) / distance(start(), goal))
    assert shares[0] < 0.1
    assert shares[1] < shares[0] / 4


def test_product_is_the_hessians():
    gradient = sum_gradient(CLASS.forget, WIDTH)
    w = parameters_to_vector(start().member(0).parameters()).detach().requires_grad_()
    v = torch.randn(len(w), generator=torch.Generator().manual_seed(0))
    (wanted,) = torch.autograd.grad(gradient(w) @ v, w)
    torch.testing.assert_close(product_with(gradient)(w.detach(), v), wanted, rtol=1e-4, atol=1e-3)


def test_it_is_compared_with_the_others_at_as_many_configurations():
    assert len(METHODS["Mini-Unlearning"].configurations()) == len(METHODS["fine-tuning"].configurations())
    rates = {configuration["learning_rate"] for configuration in METHODS["Mini-Unlearning"].configurations()}
    assert (min(rates), max(rates)) == (0.01, 1.0)
