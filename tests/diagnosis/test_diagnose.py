"""A diagnosis against gradients that are known: quadratics, orthogonal gradients, noise of a known distribution."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import mtopt
from mtopt.diagnosis import Diagnosis, diagnose
from mtopt.diagnosis._rounding import is_rounding, unit_of
from mtopt.diagnosis._statistics import chance_level, cosines_of, read_noise


class TwoLayers(nn.Module):
    """Parameters whose losses are linear: their gradients are what one gives."""

    def __init__(self, *sizes: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        for number, size in enumerate(sizes):
            layer = nn.Module()
            layer.weight = nn.Parameter(torch.zeros(size, dtype=dtype))
            self.add_module(f"layer{number}", layer)

    def forward(self) -> torch.Tensor:
        return torch.cat(list(self.parameters()))


def at_angle(cosine: float, size: int, length: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    first[0] = 1.0
    second[0], second[1] = length * cosine, length * math.sqrt(1 - cosine**2)
    return first, second


def quadratic(x: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """``||x + g||^2 / 2``, whose gradient at zero is g."""
    return (x + gradient).square().sum() / 2


def test_cosines_of_quadratics_by_layer():
    model = TwoLayers(40, 50)
    parts = [at_angle(-0.8, 40), at_angle(0.3, 50, length=2.0)]
    gradients = [torch.cat([part[k] for part in parts]) for k in range(2)]
    found = diagnose({"a": quadratic(model(), gradients[0]), "b": quadratic(model(), gradients[1])}, model)
    assert [layer.name for layer in found.layers] == ["layer0", "layer1"]
    np.testing.assert_allclose([layer.cosines[0, 1] for layer in found.layers], [-0.8, 0.3], atol=1e-12)
    np.testing.assert_allclose([layer.norms for layer in found.layers], [[1, 1], [1, 2]], atol=1e-12)
    whole = (-0.8 + 0.3 * 2) / (math.sqrt(2) * math.sqrt(5))
    np.testing.assert_allclose(found.cosines, [[1, whole], [whole, 1]], atol=1e-12)
    assert found.norms == pytest.approx({"a": math.sqrt(2), "b": math.sqrt(5)})
    assert found.ratio == pytest.approx(math.sqrt(2.5))
    assert (found.dimensions, found.private, found.noise) == (90, 0, None)
    assert [layer.name for layer in found.conflicting_layers()] == ["layer0"]
    assert not found.conflicting  # the whole is within chance
    assert "in 1 of 2 layers, most in 'layer0' (-0.80)" in found.verdict()


def test_orthogonal_gradients_do_not_conflict():
    model = TwoLayers(30)
    rows = torch.eye(30, dtype=torch.float64)[:4] * torch.tensor([[1.0], [2.0], [3.0], [50.0]])
    found = diagnose([quadratic(model(), row) for row in rows], model)
    np.testing.assert_allclose(found.cosines, np.eye(4), atol=1e-12)
    assert not found.conflicting
    assert found.under.rising == []
    assert "No pair of gradients conflicts" in found.verdict()
    assert "times the shortest, of 'loss_0'" in found.verdict()


@pytest.mark.parametrize("size", [2, 3, 5, 100, 10_000])
def test_chance_is_what_random_directions_do(size):
    generator = np.random.default_rng(0)
    draws = generator.standard_normal((2_000, min(size, 200)))
    if size <= 200:
        cosines = draws[:, 0] / np.linalg.norm(draws, axis=1)
        assert np.mean(np.abs(cosines) <= chance_level(size)) == pytest.approx(0.95, abs=0.015)
    else:
        assert chance_level(size) == pytest.approx(1.96 / math.sqrt(size), rel=1e-3)


def test_two_dimensions_are_an_angle():
    # the angle is uniform: |cos| exceeds c with probability 1 - 2 asin(c) / pi
    assert chance_level(2) == pytest.approx(math.sin(0.95 * math.pi / 2), rel=1e-9)
    assert chance_level(1) == 1.0


def noisy_products(generator, count, size, sigma, cosine=-0.5):
    """Products (B, 2, B, 2) of gradients with independent noise of deviation sigma in each coordinate."""
    means = torch.stack(at_angle(cosine, size)).numpy()
    rows = means + sigma * generator.standard_normal((count, 2, size))
    flat = rows.reshape(count * 2, size)
    return (flat @ flat.T).reshape(count, 2, count, 2)


def test_the_noise_of_a_known_distribution():
    generator, size, sigma, count = np.random.default_rng(1), 4_000, 0.02, 2
    found = [read_noise(noisy_products(generator, count, size, sigma)) for _ in range(60)]
    # the mean of B batches has noise of norm sigma sqrt(D / B)
    assert np.mean([noise.norms for noise in found]) == pytest.approx(sigma * math.sqrt(size / count), rel=0.01)
    # the noise makes cosines smaller; behind it they are what they are
    assert np.mean([noise.denoised[0, 1] for noise in found]) == pytest.approx(-0.5, abs=0.02)
    np.testing.assert_allclose(np.mean([noise.denoised for noise in found], axis=0).diagonal(), 1.0, atol=1e-9)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_intervals_hold_the_cosine_of_the_mean_in_most_draws(count):
    generator, size, sigma = np.random.default_rng(2), 50, 0.1
    expected = -0.5 / (1 + sigma**2 * size / count)  # E<g_1, g_2> over the mean squares of the norms
    inside = []
    for _ in range(400):
        low, high = read_noise(noisy_products(generator, count, size, sigma)).intervals[0, 1]
        inside.append(low <= expected <= high)
    assert 0.9 < np.mean(inside) <= 1.0


def test_a_function_of_a_batch_sees_the_noise():
    torch.manual_seed(0)
    model = TwoLayers(20)
    first, second = at_angle(-0.2, 20)
    batches = [0.5 * torch.randn(2, 20, dtype=torch.float64) for _ in range(4)]
    found = diagnose(
        lambda batch: {"a": quadratic(model(), first + batch[0]), "b": quadratic(model(), second + batch[1])},
        model,
        batches=batches,
    )
    means = torch.stack([torch.stack([first, second]) + batch for batch in batches]).mean(0)
    expected = torch.nn.functional.cosine_similarity(means[0], means[1], dim=0)
    assert found.cosines[0, 1] == pytest.approx(float(expected), abs=1e-12)
    spread = torch.stack(batches)[:, 0]
    variance = (spread - spread.mean(0)).square().sum() / 3 / 4
    assert found.noise.norms[0] == pytest.approx(float(variance.sqrt()), rel=1e-9)
    assert found.batches == 4
    assert "From 4 batches" in found.verdict()


def test_an_objective_to_maximise_is_flipped():
    model = TwoLayers(10)
    first, _ = at_angle(0.0, 10)
    losses = {"keep": quadratic(model(), first), mtopt.Objective("forget", "max"): quadratic(model(), first)}
    found = diagnose(losses, model)
    assert found.cosines[0, 1] == pytest.approx(-1.0)
    assert found.losses["forget"] == pytest.approx(0.5)
    assert "conflict" in found.verdict()


def test_only_shared_parameters_count():
    model = TwoLayers(12, 5, 7)
    trunk, left, right = model.parameters()
    found = diagnose([quadratic(trunk, torch.ones(12)) + left.sum(), trunk.sum() - right.sum()], model)
    assert (found.dimensions, found.private) == (12, 12)
    assert [layer.name for layer in found.layers] == ["layer0"]
    assert found.cosines[0, 1] == pytest.approx(1.0)


class Restless(nn.Module):
    """Draws numbers, and has statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop, self.end = nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)
        self.own = torch.Generator().manual_seed(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.drop(self.norm(x))) + torch.randn(2, generator=self.own)


@pytest.mark.parametrize("rule", [None, "linear", "rlw", "pcgrad", "gradnorm", "famo", "moco"])
def test_nothing_is_changed(rule):
    torch.manual_seed(0)
    model, other = Restless(), nn.BatchNorm1d(4)
    combiner = None if rule is None else mtopt.create_combiner(rule)
    x = torch.randn(8, 4)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    kept = {name: tensor.clone() for name, tensor in [*model.state_dict().items(), *other.state_dict().items()]}
    state, own = torch.get_rng_state(), model.own.get_state()
    told = None if combiner is None else repr(combiner.state_dict())
    found = diagnose(
        lambda batch: list(model(other(batch)).square().mean(0)), model, batches=[x[:4], x[4:]], combiner=combiner
    )
    assert isinstance(found, Diagnosis)
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    for name, tensor in [*model.state_dict().items(), *other.state_dict().items()]:
        assert torch.equal(tensor, kept[name]), name
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.own.get_state(), own)
    assert told is None or repr(combiner.state_dict()) == told
    assert torch.is_grad_enabled()


def test_the_graph_of_losses_given_as_tensors_is_kept():
    model = TwoLayers(5)
    losses = [model().sum() ** 2, model().square().sum() + model().sum()]
    diagnose(losses, model)
    sum(losses).backward()
    assert model.layer0.weight.grad is not None


@pytest.mark.parametrize("rule", mtopt.list_combiners(needs="gramian", draws=1, exact_objectives=None))
def test_under_a_rule_it_is_the_rules_own_direction(rule):
    generator = torch.Generator().manual_seed(4)
    jacobian = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    model = TwoLayers(8, 12)
    losses = [quadratic(model(), row) for row in jacobian]
    values = torch.stack(losses).detach()
    found = diagnose(losses, model, combiner=mtopt.create_combiner(rule))
    direction = mtopt.create_combiner(rule)(jacobian, values)
    expected = torch.nn.functional.cosine_similarity(jacobian, direction[None])
    np.testing.assert_allclose(list(found.under.slopes.values()), expected, atol=1e-7)
    assert found.under.norm == pytest.approx(float(direction.norm()), rel=1e-7, abs=1e-9)
    assert found.under.rule == rule


@pytest.mark.parametrize("rule", ["graddrop", "trimmed_mean"])
def test_under_a_rule_on_coordinates(rule):
    jacobian = torch.randn(4, 20, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    model = TwoLayers(20)
    found = diagnose([quadratic(model(), row) for row in jacobian], model, combiner=mtopt.create_combiner(rule))
    direction = mtopt.create_combiner(rule)(jacobian)
    expected = torch.nn.functional.cosine_similarity(jacobian, direction[None])
    np.testing.assert_allclose(list(found.under.slopes.values()), expected, atol=1e-12)


def test_the_sum_raises_what_a_non_conflicting_rule_does_not():
    model = TwoLayers(10)
    first, second = at_angle(-0.6, 10, length=5.0)
    losses = {"short": quadratic(model(), first), "long": quadratic(model(), second)}
    assert diagnose(losses, model).under.rising == ["short"]
    assert "A small step along a plain sum raises 'short'" in diagnose(losses, model).verdict()
    assert diagnose(losses, model, combiner=mtopt.create_combiner("upgrad")).under.rising == []


def test_a_gradient_of_rounding_is_told():
    model = TwoLayers(10, dtype=torch.float32)
    first, second = (row.float() for row in at_angle(0.1, 10))
    losses = {"task": quadratic(model(), first), "kl": 1e-9 * (model() * second).sum()}
    found = diagnose(losses, model)
    assert found.rounding == ("kl",)
    assert "nothing but rounding" in found.verdict()
    assert diagnose({"task": losses["task"], "kl": 1e7 * losses["kl"]}, model).rounding == ()


def test_rules_on_several_draws_take_as_many_batches():
    model = TwoLayers(10)
    batches = [torch.randn(2, 10, dtype=torch.float64) for _ in range(3)]

    def losses(batch):
        return [quadratic(model(), row) for row in batch]

    rule = mtopt.create_combiner("modo")
    assert diagnose(losses, model, batches=batches, combiner=rule).under.rule == "modo"
    with pytest.raises(ValueError, match="3 independent batches, found 2"):
        diagnose(losses, model, batches=batches[:2], combiner=rule)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (lambda m: ([m().sum()], m), ValueError, "two or more to conflict, found \\['loss_0'\\]"),
        (lambda m: ([m.layer0.weight.sum(), m.layer1.weight.sum()], m), ValueError, "no parameter is reached by two"),
        (lambda m: ([m().sum(), m().sum() * math.nan], m), mtopt.NonFiniteError, "losses \\['loss_1'\\] have NaN"),
        (lambda m: ([m().sum(), m().sum()], m.layer0.weight), TypeError, "found one tensor; give \\[tensor\\]"),
        (lambda m: ([m().sum(), m().sum()], [torch.zeros(2)]), ValueError, "no parameter that requires gradients"),
    ],
)
def test_errors_teach(arguments, kind, message):
    with pytest.raises(kind, match=message):
        diagnose(*arguments(TwoLayers(3, 4)))


def test_errors_of_batches_and_rules_teach():
    model = TwoLayers(3)
    losses = [model().sum(), model().square().sum()]
    with pytest.raises(TypeError, match="losses must be a function of a batch, found list"):
        diagnose(losses, model, batches=[1, 2])
    with pytest.raises(ValueError, match=r"two or more batches.*found 1"):
        diagnose(lambda b: losses, model, batches=[1])
    with pytest.raises(TypeError, match="found str; create_combiner"):
        diagnose(losses, model, combiner="mgda")
    with pytest.raises(ValueError, match="two points"):
        diagnose(losses, model, combiner=mtopt.create_combiner("moco_plus"))
    named = iter([["a", "b"], ["a", "c"]])
    with pytest.raises(ValueError, match="same losses, found"):
        diagnose(lambda b: {n: model().sum() for n in next(named)}, model, batches=[1, 2])


def test_its_figure_has_a_row_for_the_whole_and_each_layer():
    model = TwoLayers(5, 6, 7)
    rows = torch.randn(3, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    figure = diagnose({f"${k}_x": quadratic(model(), row) for k, row in enumerate(rows)}, model).plot()
    left, right = figure.axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == [
        "all shared parameters",
        "layer0",
        "layer1",
        "layer2",
    ]
    assert len(right.get_yticklabels()) == 3
    figure.draw_without_rendering()


def test_cosines_of_a_zero_row_are_zero():
    np.testing.assert_array_equal(cosines_of(np.array([[0.0, 0.0], [0.0, 4.0]])), [[0, 0], [0, 1]])


def test_a_divergence_of_zero_is_rounding_though_the_task_has_a_short_gradient():
    unit = float(torch.finfo(torch.float32).eps)
    assert is_rounding(1e-8, 1.0, 0.3, unit)
    assert is_rounding(8.5e-8, 6e-3, 1e-8, unit)
    assert not is_rounding(8.5e-8, 6e-3, 1e-3, unit)
    assert not is_rounding(1e-4, 6e-3, 1e-8, unit)
    assert not is_rounding(0.0, 1.0, 0.0, unit)  # a zero is a zero
    assert unit_of(torch.bfloat16) == unit
