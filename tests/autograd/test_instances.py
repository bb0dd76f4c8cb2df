"""``mtopt.per_instance``: errors that teach, samples that mix, skipped steps, scalers, and what is left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from mtopt import NonFiniteError
from mtopt.linalg import InnerProducts
from tests.autograd.instance_helpers import rows_of, taken_down

BATCH = 6


class Equal(mtopt.GramianCombiner):
    """The mean: with equal weights a wrong Gramian is the hardest to see."""

    def weights(self, gramian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return torch.full((len(gramian),), 1.0 / len(gramian))


def model_of(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def inputs_of(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def losses_of(model: nn.Module, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return model(inputs_of(dtype)).square().mean(1)


def gradient_of(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])


# -- what a step writes and reports -------------------------------------------------------------------------------


def test_the_record() -> None:
    model = model_of()
    instances, losses = taken_down(model, lambda: losses_of(model))
    rows = rows_of(losses, model)
    record = instances.backward(losses, mtopt.create_combiner("mgda"))
    assert list(record.losses) == [f"loss_{k}" for k in range(BATCH)]
    assert list(record.losses.values()) == pytest.approx(losses.tolist())
    assert record.norms == pytest.approx({f"loss_{k}": float(row.norm()) for k, row in enumerate(rows)})
    assert record.cosines is not None
    assert record.cosines.shape == (BATCH, BATCH)
    assert record.weights is not None
    assert sum(record.weights.values()) == pytest.approx(1.0)
    assert record.backwards == 2
    assert record.plan.startswith("layer by layer: 4 tensors")
    expected = torch.tensor(list(record.weights.values()), dtype=torch.float64) @ rows
    torch.testing.assert_close(gradient_of(model), expected)


def test_it_accumulates_and_leaves_nothing_behind() -> None:
    model = model_of()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    gradients = []
    for _ in range(2):
        instances, losses = taken_down(model, lambda: losses_of(model))
        instances.gramian(losses)  # the graph survives it
        instances.backward(losses, mtopt.create_combiner("upgrad"))
        gradients.append(gradient_of(model).clone())
    torch.testing.assert_close(gradients[1], 2 * gradients[0])
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before
    assert all(not module._forward_hooks for module in model.modules())
    assert all(set(vars(p)) <= {"_backward_hooks"} for p in model.parameters())


def test_hooks_go_when_the_forward_raises() -> None:
    model = model_of()
    with pytest.raises(RuntimeError, match="mat1 and mat2"), mtopt.per_instance(model):
        model(torch.randn(2, 5, dtype=torch.float64))
    assert all(not module._forward_hooks for module in model.modules())


def test_one_object_serves_many_steps() -> None:
    model, rule = model_of(), mtopt.create_combiner("mgda")
    instances = mtopt.per_instance(model)
    found = []
    for _ in range(2):
        model.zero_grad()
        with instances:
            losses = losses_of(model)
            instances.backward(losses, rule)  # inside the block as well
        found.append(gradient_of(model))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


# -- wrong arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda losses: list(losses), TypeError, r"shape \(B,\).*found list"),
        (lambda losses: losses[:, None], ValueError, r"found \(6, 1\)"),
        (lambda losses: losses.mean(), ValueError, r"found \(\).*reduction"),
        (lambda losses: losses[:0], ValueError, r"found \(0,\)"),
        (lambda losses: losses.detach(), ValueError, "no graph"),
        (lambda losses: losses.repeat(2), ValueError, r"12 losses, and layers that return \(6, 3\), \(6, 7\)"),
    ],
)
def test_losses_of_another_shape(change, error, match) -> None:  # type: ignore[no-untyped-def]
    model = model_of()
    instances, losses = taken_down(model, lambda: losses_of(model))
    with pytest.raises(error, match=match):
        instances.backward(change(losses), mtopt.create_combiner("mgda"))


def test_a_sequence_with_its_batch_second() -> None:
    model = nn.Linear(4, 3)
    instances, losses = taken_down(model, lambda: model(torch.randn(5, BATCH, 4)).square().mean((0, 2)))
    with pytest.raises(ValueError, match=r"first dimension of every layer: found 6 losses.*\(5, 6, 3\).*batch_first"):
        instances.backward(losses, mtopt.create_combiner("mgda"))


@pytest.mark.parametrize("name", ["moco", "graddrop", "modo"])
def test_a_rule_that_needs_coordinates(name) -> None:  # type: ignore[no-untyped-def]
    model = model_of()
    instances, losses = taken_down(model, lambda: losses_of(model))
    with pytest.raises(ValueError, match=r"coordinates.*mtopt.backward\(list\(losses\)|mini-batches per step"):
        instances.backward(losses, mtopt.create_combiner(name))


def test_rules_by_layer_and_names_of_rules() -> None:
    model = model_of()
    instances, losses = taken_down(model, lambda: losses_of(model))
    with pytest.raises(ValueError, match="coordinates"):
        instances.backward(losses, mtopt.PerGroup(mtopt.create_combiner("mgda"), by="layer"))
    with pytest.raises(TypeError, match=r"create_combiner\('mgda'\)"):
        instances.backward(losses, "mgda")  # type: ignore[arg-type]


def test_wrappers_of_rules_on_inner_products() -> None:
    model = model_of()
    for wrap in (mtopt.Normalized, lambda rule: mtopt.Smoothed(rule, 0.5)):
        gradients = []
        for by_layer in (True, False):
            model.zero_grad()
            rule = wrap(mtopt.create_combiner("upgrad"))
            instances, losses = taken_down(model, lambda: losses_of(model))
            if by_layer:
                instances.backward(losses, rule)
            else:
                mtopt.backward(list(losses), model, rule)
            gradients.append(gradient_of(model))
        torch.testing.assert_close(*gradients)


def test_the_forward_outside_the_block() -> None:
    model = model_of()
    with pytest.raises(RuntimeError, match="inside the with block"):
        mtopt.per_instance(model).backward(losses_of(model), mtopt.create_combiner("mgda"))
    with pytest.raises(TypeError, match=r"torch\.nn\.Module, found list"):
        mtopt.per_instance(list(model.parameters()))  # type: ignore[arg-type]


def test_several_ranks_are_refused(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    model = model_of()
    instances, losses = taken_down(model, lambda: losses_of(model))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="over ranks yet, and 2"):
        instances.backward(losses, mtopt.create_combiner("mgda"))


def test_another_model_than_that_of_the_losses() -> None:
    model = model_of()
    with mtopt.per_instance(nn.Linear(2, 2)) as instances:
        losses = losses_of(model)
    with pytest.raises(ValueError, match="another model"):
        instances.backward(losses, mtopt.create_combiner("mgda"))


def test_a_compiled_model() -> None:
    compiled = torch.compile(model_of(), backend="eager")
    with pytest.raises(ValueError, match=r"before torch\.compile"), mtopt.per_instance(compiled):  # type: ignore[arg-type]
        pass
    in_place = model_of()
    in_place.compile(backend="eager")
    with pytest.raises(ValueError, match=r"before torch\.compile"), mtopt.per_instance(in_place):
        pass


def test_gradients_that_were_never_made_are_not_handed_out() -> None:
    products = InnerProducts(torch.eye(2, dtype=torch.float64), torch.float32)
    for ask in (products.jacobian, lambda: products.combined(torch.ones(2))):
        with pytest.raises(TypeError, match="never made"):
            ask()


# -- samples that mix ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_in_training_mode(affine) -> None:  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, affine=affine), nn.Linear(5, 2)).double()
    instances, losses = taken_down(model, lambda: losses_of(model))
    with pytest.raises(ValueError, match=r"batch normalisation in training mode.*eval\(\).*mtopt\.backward\(list"):
        instances.backward(losses, mtopt.create_combiner("mgda"))


@pytest.mark.parametrize("rule", [mtopt.create_combiner("mgda"), mtopt.create_combiner("upgrad"), Equal()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_activations_that_mix_samples_are_seen_by_the_direction(rule, dtype) -> None:  # type: ignore[no-untyped-def]
    class Centred(nn.Module):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return given - given.mean(0)

    model = model_of(dtype).insert(1, Centred())
    instances, losses = taken_down(model, lambda: losses_of(model, dtype))
    with pytest.raises(RuntimeError, match="do not belong to the direction"):
        instances.backward(losses, rule)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("rule", [mtopt.create_combiner("mgda"), Equal()])
def test_another_dimension_as_long_as_the_batch(rule) -> None:  # type: ignore[no-untyped-def]
    model = model_of()
    inputs = torch.randn(BATCH, BATCH, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    instances, losses = taken_down(model, lambda: model(inputs).square().mean((0, 2)))
    with pytest.raises(RuntimeError, match="no other dimension that comes first may be as long"):
        instances.backward(losses, rule)


def test_a_short_direction_is_no_disagreement() -> None:
    """Opposite gradients that cancel but for their last digits."""
    model = nn.Linear(4, 1, bias=False)
    inputs = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    inputs = torch.cat([inputs, -inputs])
    instances, losses = taken_down(model, lambda: model(inputs)[:, 0])
    record = instances.backward(losses, mtopt.create_combiner("mgda"))
    assert not record.skipped
    assert float(gradient_of(model).norm()) < 1e-6


# -- NaN, infinity, scalers ---------------------------------------------------------------------------------------


class InfiniteGradient(torch.autograd.Function):
    """The identity, with an infinite gradient for the third sample."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        gradient = gradient.clone()
        gradient[2] = torch.inf
        return gradient


def spoilt_losses(model: nn.Module, kind: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    losses = losses_of(model, dtype)
    if kind == "gradient":
        return InfiniteGradient.apply(losses)  # type: ignore[no-any-return, no-untyped-call]
    return losses * torch.where(torch.arange(BATCH) == 2, torch.nan, 1.0).to(dtype)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
@pytest.mark.parametrize("name", ["mgda", "ngdiff", "gradvac"])
def test_a_bad_sample_skips_the_step(name, kind) -> None:  # type: ignore[no-untyped-def]
    model, rule = model_of(), mtopt.create_combiner(name)
    instances, losses = taken_down(model, lambda: losses_of(model))
    instances.backward(losses, rule)
    gradient, state = gradient_of(model).clone(), repr(rule.state_dict())
    instances, losses = taken_down(model, lambda: spoilt_losses(model, kind))
    record = instances.backward(losses, rule)
    assert record.skipped
    assert record.reason == f"non-finite {kind}: loss_2"
    assert record.weights is None
    assert torch.equal(gradient_of(model), gradient)
    assert repr(rule.state_dict()) == state
    instances, losses = taken_down(model, lambda: spoilt_losses(model, kind))
    with pytest.raises(NonFiniteError, match=f"non-finite {kind}: loss_2"):
        instances.backward(losses, rule, strict=True)


@pytest.mark.parametrize("name", ["mgda", "ngdiff", "linear"])
@pytest.mark.parametrize("init_scale", [1.0, 1024.0])
def test_a_grad_scaler_does_not_change_the_direction(name, init_scale) -> None:  # type: ignore[no-untyped-def]
    model = model_of(torch.float32)
    instances, losses = taken_down(model, lambda: losses_of(model, torch.float32))
    instances.backward(losses, mtopt.create_combiner(name))
    expected = gradient_of(model).clone()
    model.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
    instances, losses = taken_down(model, lambda: losses_of(model, torch.float32))
    instances.backward(losses, mtopt.create_combiner(name), scaler=scaler)
    torch.testing.assert_close(gradient_of(model), init_scale * expected)


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_a_scaler_learns_of_a_skipped_step(kind) -> None:  # type: ignore[no-untyped-def]
    model = model_of(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weights = [p.detach().clone() for p in model.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    instances, losses = taken_down(model, lambda: spoilt_losses(model, kind, torch.float32))
    assert instances.backward(losses, mtopt.create_combiner("mgda"), scaler=scaler).skipped
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), weights, strict=True))


def test_a_sample_with_no_gradient() -> None:
    model = model_of(torch.float32)
    mask = (torch.arange(BATCH) != 1).float()
    instances, losses = taken_down(model, lambda: losses_of(model, torch.float32) * mask)
    gramian = instances.gramian(losses)
    assert bool((gramian[1] == 0).all())
    assert bool((gramian.diagonal()[mask > 0] > 0).all())


def test_training_on_single_samples() -> None:
    """UPGrad over samples lowers every one of their losses at a stationary batch."""
    model, rule = model_of(), mtopt.create_combiner("upgrad")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    targets = torch.arange(BATCH) % 3
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        with mtopt.per_instance(model) as instances:
            losses = nn.functional.cross_entropy(model(inputs_of()), targets, reduction="none")
        instances.backward(losses, rule)
        optimizer.step()
        values.append(losses.detach())
    assert bool((values[-1] < values[0]).all())
