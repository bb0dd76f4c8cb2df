"""DP2Unlearning on the digits: DP-SGD against autograd image by image, plain descent, and the accountant's formula."""

from dataclasses import replace
from functools import partial
from math import comb, exp, log

import pytest
import torch

from benchmarks.unlearning.digits import protected
from benchmarks.unlearning.digits.comparison import METHODS, Method, compare_methods
from benchmarks.unlearning.digits.ensemble import Ensemble, Training, network, train
from benchmarks.unlearning.digits.methods import train_anew
from benchmarks.unlearning.digits.metrics import accuracies
from benchmarks.unlearning.digits.protected import clipped_sum, dp2unlearning, noisy_descent, privacy
from benchmarks.unlearning.digits.settings import Points
from benchmarks.unlearning.dp2unlearning import protection_of
from tests.benchmarks.unlearning.digits_models import CLASS, SMALL

WIDTH = 16
UNCLIPPED = 1e9


def start(seeds=range(2)):
    return Ensemble([network(seed, WIDTH) for seed in seeds])


def gradient_of(model, images, labels):
    loss = torch.nn.functional.cross_entropy(model(images), labels, reduction="sum")
    return torch.autograd.grad(loss, list(model.parameters()))


def norm(tensors):
    return torch.stack([tensor.norm() for tensor in tensors]).norm()


def test_each_image_is_clipped_by_itself():
    ensemble = start()
    images, labels = CLASS.retain.images[:12].view(2, 6, -1), CLASS.retain.labels[:12].view(2, 6)
    counted = torch.tensor([[1.0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]])
    alone = [
        [gradient_of(ensemble.member(n), images[n, i : i + 1], labels[n, i : i + 1]) for i in range(6)]
        for n in range(2)
    ]
    bound = float(torch.stack([norm(gradient) for gradients in alone for gradient in gradients]).median())
    found = clipped_sum(ensemble, Points(images, labels), counted, bound)
    for n, gradients in enumerate(alone):
        parts = [
            [weight * min(1.0, bound / norm(gradient)) * part for part in gradient]
            for gradient, weight in zip(gradients, counted[n], strict=True)
        ]
        for mine, wanted in zip(found, (sum(each) for each in zip(*parts, strict=True)), strict=True):
            torch.testing.assert_close(mine[n], wanted, rtol=1e-4, atol=1e-5)


def test_without_noise_and_clipping_it_is_gradient_descent():
    """With every image in each step the protected training is the plain one."""
    count = len(CLASS.train.labels)
    config = replace(privacy(1.0), max_norm=UNCLIPPED, batch_size=count, epochs=5, learning_rate=0.3)
    found = noisy_descent(CLASS.train, range(2), config, 0.0, width=WIDTH)
    for place in range(2):
        model = start().member(place)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3 / count)
        for _ in range(5):
            for parameter, gradient in zip(model.parameters(), gradient_of(model, *CLASS.train), strict=True):
                parameter.grad = gradient
            optimizer.step()
        for mine, theirs in zip(found.member(place).parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_noise_has_the_deviation_that_the_budget_wants():
    count = len(CLASS.train.labels)
    config = replace(privacy(1.0), max_norm=0.7, batch_size=count, epochs=1, learning_rate=1.0)
    quiet, noisy = (noisy_descent(CLASS.train, range(2), config, noise, width=WIDTH) for noise in (0.0, 3.0))
    drawn = [(a - b) * count for a, b in zip(noisy.parameters(), quiet.parameters(), strict=True)]
    for place in range(2):
        entries = torch.cat([tensor[place].detach().flatten() for tensor in drawn])
        # over D entries, mean and deviation within four standard errors of theirs
        assert abs(entries.mean().item()) < 4 * 2.1 / len(entries) ** 0.5
        assert entries.std().item() == pytest.approx(2.1, rel=4 / (2 * len(entries)) ** 0.5)
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_drawn_images_make_the_mean_gradient_on_average():
    """Where weights hardly move, T steps at rate q are T steps along the mean gradient, but for what sampling does."""
    config = replace(privacy(1.0), max_norm=UNCLIPPED, learning_rate=1e-5)
    found = noisy_descent(CLASS.train, range(1), config, 0.0, width=WIDTH).member(0)
    model, count = start().member(0), len(CLASS.train.labels)
    steps = protection_of(config, count).steps
    expected = [-1e-5 * steps / count * gradient for gradient in gradient_of(model, *CLASS.train)]
    moved = [a.detach() - b.detach() for a, b in zip(found.parameters(), model.parameters(), strict=True)]
    assert norm([a - b for a, b in zip(moved, expected, strict=True)]) < 0.1 * norm(expected)


def test_a_model_does_not_depend_on_those_beside_it():
    config = replace(privacy(1.0), epochs=2)
    both, alone = (noisy_descent(CLASS.train, seeds, config, 1.0, width=WIDTH) for seeds in ((4, 7), (7,)))
    for together, single in zip(both.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(together[1], single[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("epsilon", [1.0, 10.0])
def test_the_budget_is_that_of_the_sampled_gaussian_mechanism(epsilon):
    """Rényi divergence of integer order a (Mironov et al., 2019), summed over the steps, and its conversion: a bound
    that orders in between may better by a little."""
    config = privacy(epsilon)
    count = len(CLASS.train.labels)
    found = protection_of(config, count)
    q, variance = config.batch_size / count, found.noise_multiplier**2

    def divergence(a):
        terms = (comb(a, k) * (1 - q) ** (a - k) * q**k * exp(k * (k - 1) / (2 * variance)) for k in range(a + 1))
        return log(sum(terms)) / (a - 1)

    def bound(a):
        return found.steps * divergence(a) + log((a - 1) / a) - (log(config.delta) + log(a)) / (a - 1)

    assert 0.98 * epsilon < found.epsilon <= epsilon
    assert found.epsilon <= min(bound(a) for a in range(2, 40)) * (1 + 1e-9)
    assert found.epsilon == pytest.approx(min(bound(a) for a in range(2, 40)), rel=0.03)


def test_one_image_more_moves_a_step_by_its_clipped_gradient_at_most():
    """The sensitivity that the noise is made for."""
    fewer = Points(*(part[:11] for part in CLASS.train))
    more = Points(*(part[:12] for part in CLASS.train))
    # with either number all are drawn, in one step, and the sum is divided by 12
    config = replace(privacy(1.0), max_norm=0.5, epochs=1, learning_rate=1.0, batch_size=12)
    moved = [noisy_descent(points, range(2), config, 0.0, width=WIDTH) for points in (fewer, more)]
    for place in range(2):
        pairs = zip(*(models.member(place).parameters() for models in moved), strict=True)
        assert 0 < norm([a.detach() - b.detach() for a, b in pairs]) <= 0.5 / 12 * (1 + 1e-3)


def test_a_base_that_has_learnt_nothing_leaves_exact_retraining(monkeypatch):
    """Where the second stage is as long as retraining, and on the same batches."""
    retraining, seeds = Training(width=WIDTH, epochs=2), range(2)
    wanted = train(CLASS.retain, seeds, retraining)
    options = {"seeds": seeds, "learning_rate": retraining.learning_rate, "epochs": retraining.epochs}
    learnt = dp2unlearning(start(), CLASS, epsilon=100.0, **options)
    still = replace(privacy(100.0), learning_rate=1e-30)
    monkeypatch.setattr(protected, "privacy", lambda epsilon: still)
    for found in (dp2unlearning(start(), CLASS, **options), train_anew(start(), CLASS, **options)):
        for mine, theirs in zip(found.parameters(), wanted.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    apart = norm([a.detach() - b.detach() for a, b in zip(learnt.parameters(), wanted.parameters(), strict=True)])
    assert apart > 0.1 * norm(list(wanted.parameters()))


def test_the_originals_weights_do_not_count():
    """They know what is to be forgotten, and a base must not."""
    options = {"seeds": range(2), "learning_rate": 1e-2, "epochs": 1}
    for unlearn in (dp2unlearning, train_anew):
        both = [unlearn(start(seeds), CLASS, **options) for seeds in (range(2), range(7, 9))]
        assert all(torch.equal(a, b) for a, b in zip(*(models.parameters() for models in both), strict=True))


def test_it_takes_part_where_it_is_named(monkeypatch, tmp_path):
    """Opacus is not among what the suite's extra brings, so the command without names must do without it."""

    def asked_in_vain(*_):
        raise ModuleNotFoundError("no accountant here", name="opacus")

    def unchanged(original, setting, **_):
        return original

    monkeypatch.setattr("benchmarks.unlearning.dp2unlearning._account", asked_in_vain)
    protection_of.cache_clear()
    for name in METHODS.keys() - {"DP2Unlearning", "from scratch"}:
        monkeypatch.setitem(METHODS, name, Method(unchanged))
    options = {"members": 2, "trials": 3, "training": SMALL, "cache_dir": tmp_path}
    rows = compare_methods(CLASS, **options)
    assert {row.method for row in rows} == {"original", "retrained", *METHODS} - {"DP2Unlearning"}
    with pytest.raises(ModuleNotFoundError, match="no accountant here"):
        compare_methods(CLASS, chosen=["DP2Unlearning"], **options)


def test_the_class_is_gone_and_the_rest_is_told():
    """The second stage sees the retain set alone; so does retraining, which is the same from new weights."""
    methods = (partial(dp2unlearning, epsilon=1.0), partial(dp2unlearning, epsilon=100.0), train_anew)
    for unlearn in methods:
        found = accuracies(unlearn(start(), CLASS, seeds=range(2), learning_rate=1e-2), CLASS)
        assert max(found["forget"]) < 0.05
        assert min(found["test"]) > 0.9


def test_it_is_compared_with_the_others_at_as_many_configurations():
    found = METHODS["DP2Unlearning"].configurations()
    assert len(found) == len(METHODS["fine-tuning"].configurations()) == len(METHODS["from scratch"].configurations())
    assert {configuration["epsilon"] for configuration in found} == {1.0, 10.0, 100.0}
