"""The two stages of DP2Unlearning: clipping and noise by definition, the budget, and what the second leaves."""

import math

import pytest
import torch

from benchmarks.unlearning.dp2unlearning import PrivacyConfig, clipped_sum, deploy, protect
from benchmarks.unlearning.encoding import collate
from benchmarks.unlearning.losses import nll
from benchmarks.unlearning.models import FitConfig
from tests.benchmarks.unlearning.tiny import PAD, model_of, rows_of

ROWS = rows_of(0, 12)
# every row in each step: accounting for a sample of them takes seconds
CONFIG = PrivacyConfig(epsilon=8.0, delta=1e-3, epochs=4, batch_size=12, learning_rate=0.1)
SAMPLED = PrivacyConfig(epsilon=2.0, delta=1e-3, epochs=2, batch_size=4, learning_rate=0.1)


@pytest.fixture
def model():
    return model_of(0, layers=1)


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def test_each_row_is_clipped_by_itself(model):
    alone = []
    for row in ROWS[:3]:
        loss = nll(model, collate([row], PAD))
        alone.append(flat(torch.autograd.grad(loss, list(model.parameters()))))
    norms = [gradient.norm().item() for gradient in alone]
    bound = sorted(norms)[1]  # one is shorter, one longer
    expected = sum(gradient * min(1.0, bound / norm) for gradient, norm in zip(alone, norms, strict=True))
    found = flat(clipped_sum(model, ROWS[:3], max_norm=bound, pad_id=PAD))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # one row more or less moves the sum by the bound at most: the sensitivity
    fewer = flat(clipped_sum(model, ROWS[:2], max_norm=0.5, pad_id=PAD))
    more = flat(clipped_sum(model, ROWS[:3], max_norm=0.5, pad_id=PAD))
    assert (more - fewer).norm().item() <= 0.5 * (1 + 1e-5)


def test_the_budget_is_kept_and_used(model):
    protection = protect(model, ROWS, CONFIG, pad_id=PAD)
    tighter = protect(model, ROWS, PrivacyConfig(**{**vars(CONFIG), "epsilon": 2.0}), pad_id=PAD)
    sampled = protect(model, ROWS, SAMPLED, pad_id=PAD)
    assert (protection.steps, sampled.steps) == (4, 6)
    assert 0.9 * 8 < protection.epsilon <= 8
    assert 0.9 * 2 < min(tighter.epsilon, sampled.epsilon) <= max(tighter.epsilon, sampled.epsilon) <= 2
    # a small budget wants more noise, and rows that are seldom drawn want less of it
    assert tighter.noise_multiplier > protection.noise_multiplier
    assert tighter.noise_multiplier > sampled.noise_multiplier


def test_a_single_step_of_all_rows_costs_what_the_gaussian_mechanism_does(model):
    """With every row in the batch RDP is ``alpha / (2 sigma²)``, and epsilon its least conversion over the orders."""
    config = PrivacyConfig(epsilon=3.0, delta=1e-3, epochs=1, batch_size=12, learning_rate=0.1)
    protection = protect(model, ROWS, config, pad_id=PAD)
    orders = [1 + step / 10 for step in range(1, 100)] + list(range(12, 64))
    sigma = protection.noise_multiplier
    epsilon = min(
        order / (2 * sigma**2)
        - (math.log(config.delta) + math.log(order)) / (order - 1)
        + math.log((order - 1) / order)
        for order in orders
    )
    assert protection.epsilon == pytest.approx(epsilon, rel=1e-9)


def test_a_step_moves_by_the_clipped_sum_and_noise_of_that_size(model):
    config = PrivacyConfig(epsilon=3.0, delta=1e-3, epochs=1, batch_size=12, learning_rate=0.1, max_norm=0.7)
    before = flat(model.parameters())
    expected = flat(clipped_sum(model, ROWS, max_norm=0.7, pad_id=PAD))
    protection = protect(model, ROWS, config, pad_id=PAD)
    noise = (before - flat(model.parameters())) * 12 / 0.1 - expected
    deviation = protection.noise_multiplier * 0.7
    # over D entries, mean and deviation within four standard errors of theirs
    assert abs(noise.mean().item()) < 4 * deviation / len(noise) ** 0.5
    assert noise.std().item() == pytest.approx(deviation, rel=4 / (2 * len(noise)) ** 0.5)


def test_the_same_seed_gives_the_same_base():
    first, second, other = (model_of(0, layers=1) for _ in range(3))
    for each, seed in ((first, 1), (second, 1), (other, 2)):
        protect(each, ROWS, CONFIG, pad_id=PAD, seed=seed)
    assert torch.equal(flat(first.parameters()), flat(second.parameters()))
    assert not torch.equal(flat(first.parameters()), flat(other.parameters()))


def test_a_request_starts_from_the_base_again(model):
    """What is deployed after a request has learnt the rows that are left, and those removed less than before."""
    protect(model, ROWS, CONFIG, pad_id=PAD)
    base = flat(model.parameters())
    fitting = FitConfig(epochs=25, learning_rate=1e-2, batch_size=4)
    full = deploy(model, ROWS, fitting, pad_id=PAD)
    left = deploy(model, ROWS[3:], fitting, pad_id=PAD)
    assert torch.equal(flat(model.parameters()), base)
    removed, kept = collate(ROWS[:3], PAD), collate(ROWS[3:], PAD)
    with torch.no_grad():
        assert nll(left, kept).item() < 0.5 * nll(model, kept).item()
        assert nll(left, removed).item() > nll(full, removed).item() + 0.5


def test_wrong_arguments_are_named(model):
    with pytest.raises(ValueError, match="epsilon must be positive, got 0"):
        PrivacyConfig(epsilon=0)
    with pytest.raises(ValueError, match="rows is empty"):
        protect(model, [], CONFIG, pad_id=PAD)
