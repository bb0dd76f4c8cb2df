"""``plan="matrix_free"``: products with the Gramian against a Jacobian made by hand, and steps that leave no trace."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import mtopt
from mtopt import MatrixFree
from mtopt.combiners import create_combiner
from tests.autograd.helpers import MultiHead, close, extra_pass, flat_gradient
from tests.autograd.test_direction import Branching

PRODUCTS = ("exact", "displacement")
RULES = ("mgda", "nash_mtl", "fairgrad")


class Model(nn.Module):
    """A body under three losses that reach all of it, and float64 inputs unless told otherwise."""

    def __init__(self, body: nn.Module, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.body = body.to(dtype)
        self.inputs = torch.randn(*shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(dtype)

    def losses(self) -> list[torch.Tensor]:
        found = self.body(self.inputs)
        found = found[0] if isinstance(found, tuple) else found
        return [found.square().mean(), (found - 0.3).abs().mean() + found.sin().mean(), 3.0 + found.cos().mean()]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(6, 18)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        parts = self.project(inputs).view(*inputs.shape[:2], 3, 1, 6).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        return nn.functional.scaled_dot_product_attention(query, key, value)


def bodies() -> dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]]:
    return {
        "mlp": lambda: (nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)), (10, 4)),
        "cnn with batch norm": lambda: (
            nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2)),
            (8, 1, 6, 6),
        ),
        "lstm": lambda: (nn.LSTM(3, 5, batch_first=True), (4, 6, 3)),
        "transformer": lambda: (nn.TransformerEncoderLayer(6, 2, 8, dropout=0.2, batch_first=True), (3, 5, 6)),
        "transformer in eval mode": lambda: (
            nn.TransformerEncoderLayer(6, 2, 8, dropout=0.2, batch_first=True).eval(),
            (3, 5, 6),
        ),
        "fused attention": lambda: (Attention(), (3, 5, 6)),
        "dropout": lambda: (nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 2)), (9, 4)),
    }


def built(name: str, dtype: torch.dtype = torch.float64) -> Model:
    torch.manual_seed(0)
    return Model(*bodies()[name](), dtype)


def by_hand(model: Model) -> torch.Tensor:
    """The Jacobian (3, D), float64, of one forward from the generators as they are; these are put back."""
    state, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    losses = model.losses()
    rows = [torch.autograd.grad(loss, list(model.parameters()), retain_graph=True) for loss in losses]
    torch.set_rng_state(generator)
    model.load_state_dict(state)
    return torch.stack([torch.cat([g.reshape(-1) for g in row]) for row in rows]).double()


class Watching(mtopt.combiners.MGDA):
    """Keeps the products that it is given."""

    def follow(self, objectives, products, squared_length, *, rate=0.2):  # type: ignore[no-untyped-def]
        self.seen = np.array(products), squared_length
        return super().follow(objectives, products, squared_length, rate=rate)


@pytest.mark.parametrize("name", bodies())
@pytest.mark.parametrize("product", PRODUCTS)
def test_the_product_is_the_gramians(name: str, product: str) -> None:
    model, rule = built(name), Watching()
    for _ in range(2):
        gramian = by_hand(model) @ by_hand(model).T
        weights = rule.weights_to_follow(range(3))
        mtopt.backward(model.losses, model, rule, plan=MatrixFree(product))  # type: ignore[arg-type]
        products, square = rule.seen
        expected = gramian @ weights
        assert square == pytest.approx(float(weights @ expected), rel=1e-9)
        size = float(gramian.diagonal().max())
        tolerance = 1e-10 if product == "exact" else 1e-5
        np.testing.assert_allclose(products, expected.numpy(), rtol=tolerance, atol=tolerance * size)


class Inside(Model):
    """Losses that differentiate inside: once by the inputs, once by the parameters."""

    def losses(self) -> list[torch.Tensor]:
        inputs = self.inputs.clone().requires_grad_()
        found = self.body(inputs)
        (forces,) = torch.autograd.grad(found.sum(), inputs, create_graph=True)
        rows = torch.autograd.grad(found.square().mean(), list(self.parameters()), create_graph=True)
        return [
            forces.square().mean() + found.mean(),
            sum(row.square().sum() for row in rows),
            3.0 + found.cos().mean(),
        ]  # type: ignore[list-item]


@pytest.mark.parametrize("product", PRODUCTS)
def test_losses_that_differentiate_inside_have_products_too(product: str) -> None:
    torch.manual_seed(0)
    model, rule = Inside(*bodies()["mlp"]()), Watching()
    gramian = by_hand(model) @ by_hand(model).T
    expected = gramian @ rule.weights_to_follow(range(3))
    with pytest.raises(RuntimeError, match=r"give needs_graph=True to mtopt\.MatrixFree"):
        mtopt.backward(model.losses, model, rule, plan=MatrixFree(product))  # type: ignore[arg-type]
    mtopt.backward(model.losses, model, rule, plan=MatrixFree(product, needs_graph=True))  # type: ignore[arg-type]
    tolerance = 1e-10 if product == "exact" else 1e-5
    size = float(gramian.diagonal().max())
    np.testing.assert_allclose(rule.seen[0], expected.numpy(), rtol=tolerance, atol=tolerance * size)


@pytest.mark.parametrize("name", ["mlp", "transformer"])
def test_in_float32_the_displaced_product_is_good_to_a_few_percent(name: str) -> None:
    model, rule = built(name, torch.float32), Watching()
    gramian = by_hand(model) @ by_hand(model).T
    expected = gramian @ rule.weights_to_follow(range(3))
    record = mtopt.backward(model.losses, model, rule, plan=MatrixFree("displacement"))
    assert np.linalg.norm(rule.seen[0] - expected.numpy()) <= 0.03 * float(expected.norm())
    assert "displaced forward" in record.plan


@pytest.mark.parametrize("name", bodies())
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_step_leaves_the_model_and_the_generators_as_one_forward_does(name: str, product: str) -> None:
    model = built(name)
    twin = copy.deepcopy(model)
    torch.manual_seed(3)
    before = {key: value.clone() for key, value in model.named_parameters()}
    mtopt.backward(model.losses, model, create_combiner("mgda"), plan=MatrixFree(product))  # type: ignore[arg-type]
    after = torch.get_rng_state()
    torch.manual_seed(3)
    twin.losses()
    assert torch.equal(after, torch.get_rng_state())
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in model.state_dict().items())
    for key, value in model.named_parameters():
        assert isinstance(value, nn.Parameter)
        assert torch.equal(value, before[key])


def test_numpys_and_pythons_generators_are_replayed() -> None:
    model = built("mlp")
    drawn: list[tuple[float, float]] = []

    def losses() -> list[torch.Tensor]:
        drawn.append((random.random(), np.random.rand()))  # noqa: NPY002
        return [sum(drawn[-1]) * loss for loss in model.losses()]

    for _ in range(2):
        mtopt.backward(losses, model, create_combiner("mgda"), plan="matrix_free")
    assert drawn[0] == drawn[1] != drawn[2] == drawn[3]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("private", ["own", "weighted", "combined"])
def test_after_some_steps_the_gradient_is_the_exact_plans(name: str, private: str) -> None:
    model = MultiHead(4)
    params = list(model.parameters())
    rule = create_combiner(name)
    for _ in range(40):
        model.zero_grad()
        record = mtopt.backward(model.losses, model, rule, plan=MatrixFree(rate=0.5), private=private)  # type: ignore[arg-type]
    found = flat_gradient(params)
    model.zero_grad()
    exact = mtopt.backward(model.losses(), model, create_combiner(name), private=private)  # type: ignore[arg-type]
    expected = flat_gradient(params)
    assert float((found - expected).norm() / expected.norm()) < 1e-4
    assert record.weights == pytest.approx(exact.weights, rel=1e-3, abs=1e-4)
    assert record.certificate is not None
    assert record.certificate.residual < 1e-3
    assert record.backwards == (1 + extra_pass(record) if private == "own" else 1)
    assert record.plan.startswith(f"matrix-free: {record.backwards} weighted backward")
    assert record.losses == pytest.approx(exact.losses)


def test_each_set_of_losses_has_weights_of_its_own() -> None:
    model = Branching()
    params = list(model.parameters())
    rule = create_combiner("mgda")
    for step in range(40):
        model.zero_grad()
        mtopt.backward(model.losses, model, rule, plan=MatrixFree(rate=0.5))
        if step == 20:
            saved = rule.state_dict()
            rule = create_combiner("mgda")
            rule.load_state_dict(saved)
    found = flat_gradient(params)
    model.zero_grad()
    mtopt.backward(model.losses(), model, create_combiner("mgda"))
    expected = flat_gradient(params)
    assert float((found - expected).norm() / expected.norm()) < 1e-4


def test_iterations_in_one_step_are_as_many_steps_at_the_same_point() -> None:
    model = MultiHead(3)
    params = list(model.parameters())
    one, several = create_combiner("nash_mtl"), create_combiner("nash_mtl")
    for _ in range(4):
        model.zero_grad()
        mtopt.backward(model.losses, model, one, plan="matrix_free")
    expected = flat_gradient(params)
    model.zero_grad()
    record = mtopt.backward(model.losses, model, several, plan=MatrixFree(iterations=4))
    close(flat_gradient(params), expected)
    assert "4 forward-mode products" in record.plan


def test_it_adds_to_grad_and_takes_objectives_to_maximise_absent_losses_and_callables_for_each() -> None:
    model = MultiHead(3)
    params = list(model.parameters())
    losses = {
        "a": lambda: model.losses()[0],
        mtopt.Objective("b", "max"): lambda: -model.losses()[1],
        "c": None,
    }
    rule = create_combiner("mgda")
    for _ in range(40):
        model.zero_grad()
        mtopt.backward(losses, model, rule, plan=MatrixFree(rate=0.5))  # type: ignore[arg-type]
    once = flat_gradient(params)
    model.zero_grad()
    mtopt.backward([*model.losses()[:2], None], model, create_combiner("mgda"))
    expected = flat_gradient(params)
    assert float((once - expected).norm() / expected.norm()) < 1e-4
    mtopt.backward(losses, model, rule, plan="matrix_free")  # type: ignore[arg-type]
    assert float((flat_gradient(params) - 2 * expected).norm() / expected.norm()) < 1e-3


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_grad_scaler_scales_grad_and_nothing_else(product: str) -> None:
    plain, scaled = built("mlp"), built("mlp")
    rules = create_combiner("nash_mtl"), create_combiner("nash_mtl")
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(3):
        plain.zero_grad()
        scaled.zero_grad()
        mtopt.backward(plain.losses, plain, rules[0], plan=MatrixFree(product))  # type: ignore[arg-type]
        mtopt.backward(scaled.losses, scaled, rules[1], plan=MatrixFree(product), scaler=scaler)  # type: ignore[arg-type]
    grads = [flat_gradient(list(model.parameters())) for model in (plain, scaled)]
    torch.testing.assert_close(grads[1] / 1024.0, grads[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_and_leaves_the_rule_as_it_was(where: str) -> None:
    model, rule = built("mlp"), create_combiner("mgda")
    mtopt.backward(model.losses, model, rule, plan="matrix_free")
    before, grads = rule.state_dict(), flat_gradient(list(model.parameters()))

    def losses() -> list[torch.Tensor]:
        found = model.losses()
        bad = found[0] * torch.inf if where == "loss" else (found[0] - found[0]).sqrt()
        return [bad, *found[1:]]

    record = mtopt.backward(losses, model, rule, plan=MatrixFree(iterations=2))
    assert record.skipped
    assert "non-finite" in str(record.reason)
    assert rule.state_dict() == before
    assert torch.equal(flat_gradient(list(model.parameters())), grads)
    with pytest.raises(mtopt.NonFiniteError, match="non-finite"):
        mtopt.backward(losses, model, rule, plan="matrix_free", strict=True)
    scaler = torch.amp.GradScaler("cpu")
    mtopt.backward(losses, model, rule, plan="matrix_free", scaler=scaler)
    assert flat_gradient(list(model.parameters())).isnan().all(), "the scaler must see it"


def test_losses_that_change_when_run_again_are_found_out() -> None:
    model = built("mlp")
    factors = iter([1.0, 2.0, 1.0, 50.0])
    rule = create_combiner("mgda")

    def losses() -> list[torch.Tensor]:
        factor = next(factors)
        return [factor * loss for loss in model.losses()]

    with pytest.raises(ValueError, match="losses must give the same values when they are run again"):
        mtopt.backward(losses, model, rule, plan="matrix_free")
    record = mtopt.backward(losses, model, rule, plan=MatrixFree("displacement"))
    assert "the weights were kept" in record.plan
    assert record.certificate is not None
    assert record.certificate.residual == np.inf
    assert "followed" not in rule.state_dict()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, inputs):  # type: ignore[no-untyped-def]
        return 2 * inputs

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        return 2 * gradient


def test_a_part_without_a_forward_derivative_is_named_and_displacement_needs_none() -> None:
    model = built("mlp")

    def losses() -> list[torch.Tensor]:
        return [Doubled.apply(loss) for loss in model.losses()]  # type: ignore[no-untyped-call]

    generator = torch.get_rng_state()
    with pytest.raises(NotImplementedError, match=r"jvp.*MatrixFree\(product='displacement'\)"):
        mtopt.backward(losses, model, create_combiner("mgda"), plan="matrix_free")
    assert torch.equal(generator, torch.get_rng_state())
    assert all(param.grad is None for param in model.parameters())
    mtopt.backward(losses, model, create_combiner("mgda"), plan=MatrixFree("displacement"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda m: mtopt.backward(m.losses(), m, create_combiner("mgda"), plan="matrix_free"),
            TypeError,
            "is a tensor",
        ),
        (
            lambda m: mtopt.backward(m.losses, m.parameters(), create_combiner("mgda"), plan="matrix_free"),
            TypeError,
            "params must be the module",
        ),
        (
            lambda m: mtopt.backward(m.losses, m, create_combiner("pcgrad"), plan="matrix_free"),
            ValueError,
            "one of .*fairgrad, mgda, .*nash_mtl",
        ),
        (
            lambda m: mtopt.backward(m.losses, m, create_combiner("mgda"), plan="matrix_free", store="recompute"),
            ValueError,
            "leave store out",
        ),
        (lambda m: mtopt.backward(7, m, create_combiner("mgda")), TypeError, "sequence or a mapping"),
        (lambda m: MatrixFree("other"), ValueError, "product must be"),
        (lambda m: MatrixFree(iterations=0), ValueError, "iterations must be"),
        (lambda m: MatrixFree(rate=2.0), ValueError, "rate must be"),
        (lambda m: MatrixFree(displacement=0.1), ValueError, "belongs to product='displacement'"),
        (lambda m: MatrixFree("displacement", displacement=2.0), ValueError, "displacement must be"),
    ],
)
def test_errors_teach(call: Callable[[Model], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(built("mlp"))
