"""A probe walks along the optimizer's own step, and leaves everything as it was, bit for bit."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from mtopt._replay import buffers_kept
from mtopt.training.gen._probe import along_update

INPUTS = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """Batch norm, dropout, spectral norm's power iteration, and a buffer that is replaced instead of changed."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.4), nn.utils.spectral_norm(nn.Linear(8, 4))
        )
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, inputs):
        self.calls = self.calls + 1
        return self.body(inputs)


OPTIMIZERS = {
    "sgd": lambda p, **k: torch.optim.SGD(p, lr=0.1, **k),
    "momentum": lambda p, **k: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01, **k),
    "adam": lambda p, **k: torch.optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.01, **k),
    "adamw": lambda p, **k: torch.optim.AdamW(p, lr=0.01, maximize=True, **k),
    "adagrad": lambda p, **k: torch.optim.Adagrad(p, lr=0.01, **k),
}
VARIANTS = [{"foreach": False}, {"foreach": True}, {"fused": True}]
OTHERS = {
    "nadam": lambda p: torch.optim.NAdam(p),
    "asgd": lambda p: torch.optim.ASGD(p),
    "rmsprop": lambda p: torch.optim.RMSprop(p, momentum=0.5, centered=True),
    "tensor rate": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), foreach=False),
}


def everything(model, optimizer):
    """All that a probe might change, copied."""
    numbers = [p.detach().clone() for p in model.parameters()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    generators = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    return numbers, grads, copy.deepcopy((dict(model.named_buffers()), optimizer.state_dict())), generators


def same(a, b):
    if isinstance(a, torch.Tensor | np.ndarray):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def noisy_loss(model):
    return model(INPUTS).square().mean().detach() + 0.01 * np.random.rand() + 0.01 * random.random()  # noqa: NPY002


def a_step(model, optimizer):
    optimizer.zero_grad()
    model(INPUTS).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize(
    "make",
    [
        *(lambda p, f=make, v=variant: f(p, **v) for make in OPTIMIZERS.values() for variant in VARIANTS),
        *OTHERS.values(),
    ],
    ids=[*(f"{name} {next(iter(v.items()))}" for name in OPTIMIZERS for v in VARIANTS), *OTHERS],
)
def test_nothing_is_left_behind(make, steps):
    torch.manual_seed(1)
    model = Model()
    optimizer = make(model.parameters())
    for _ in range(steps):
        a_step(model, optimizer)
    optimizer.zero_grad()
    model(INPUTS).square().mean().backward()
    before = everything(model, optimizer)
    objects = [id(value) for value in optimizer.state.values()]
    tensors = [id(buffer) for buffer in model.buffers()]
    losses, moves = along_update(optimizer, lambda: float(noisy_loss(model)), (-1.0, 0.0, 0.5, 1.0, 30.0))
    assert moves
    assert len(set(losses)) == 5
    assert same(everything(model, optimizer), before)
    assert [id(value) for value in optimizer.state.values()] == objects
    assert [id(buffer) for buffer in model.buffers()] == tensors


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_walk_is_the_optimizers_own_step(make):
    """At 1 the loss is that after the real step, momentum, preconditioning and weight decay included."""
    torch.manual_seed(2)
    model = nn.Linear(6, 4).double()
    inputs = INPUTS.double()
    optimizer = make(model.parameters())

    def loss():
        return float(model(inputs).square().sum().detach())

    for _ in range(4):
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        (behind, here, ahead), _ = along_update(optimizer, loss, (-1.0, 0.0, 1.0))
        start = [p.detach().clone() for p in model.parameters()]
        assert here == loss()
        optimizer.step()
        assert ahead == pytest.approx(loss(), rel=1e-12)
        with torch.no_grad():
            for p, first in zip(model.parameters(), start, strict=True):
                p.copy_(2 * first - p)
            assert behind == pytest.approx(loss(), rel=1e-12)
            for p, first in zip(model.parameters(), start, strict=True):
                p.copy_(2 * first - p)


def test_a_run_with_probes_that_decide_nothing_is_the_run_without():
    """Dropout draws, running means and Adam's moments are those of a training that was never probed."""

    def trained(probed):
        torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
        model = Model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        for _ in range(6):
            optimizer.zero_grad()
            model(INPUTS).square().mean().backward()
            if probed:
                along_update(optimizer, lambda: float(noisy_loss(model)), (-3.0, 0.0, 1.0))
            optimizer.step()
        return everything(model, optimizer)

    assert same(trained(True), trained(False))


def test_every_point_sees_the_same_random_numbers_and_buffers():
    torch.manual_seed(4)
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    a_step(model, optimizer)
    (first, second, moved), _ = along_update(optimizer, lambda: float(noisy_loss(model)), (0.0, 0.0, 1.0))
    assert first == second != moved


def test_everything_is_put_back_when_the_loss_raises():
    torch.manual_seed(5)
    model = Model()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    a_step(model, optimizer)
    before = everything(model, optimizer)

    def raises():
        noisy_loss(model)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        along_update(optimizer, raises, (0.0, 1.0, 2.0))
    assert same(everything(model, optimizer), before)


def test_no_gradient_is_no_update_and_one_that_rounding_swallows_is():
    weight = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([weight], lr=1e-30)
    assert along_update(optimizer, lambda: 0.0, (0.0, 1.0)) == ([0.0, 0.0], False)
    weight.grad = torch.ones(3)
    assert along_update(optimizer, lambda: 0.0, (0.0, 1.0)) == ([0.0, 0.0], True)


def test_buffers_that_no_module_call_shows_are_kept_by_model():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def value(self):
            self.count += 1
            return 0.0

    model = Odd()
    with buffers_kept(model):
        model.value()
    assert float(model.count) == 0
    with buffers_kept():
        model.value()
    assert float(model.count) == 1  # nothing called the module: it must be named


def test_buffers_come_back_as_the_same_tensors():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("changed", torch.zeros(2))
            self.register_buffer("replaced", torch.zeros(2))
            self.register_buffer("empty", None)

        def forward(self):
            self.changed += 1
            self.replaced += 1
            self.replaced = self.replaced + 1
            self.empty = torch.ones(2)
            self.register_buffer("added", torch.ones(2))

    for named in (True, False):
        model = Odd()
        before = dict(model._buffers)
        with buffers_kept(*([model] if named else [])):
            model()
        assert list(model._buffers) == ["changed", "replaced", "empty"]
        assert all(model._buffers[name] is buffer for name, buffer in before.items())
        assert model.changed.tolist() == model.replaced.tolist() == [0, 0]


def test_gradients_that_an_optimizer_changes_are_put_back():
    class Halves(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for param in group["params"]:
                    param.grad.mul_(0.5)
                group["seen"] = group.get("seen", 0) + 1
            return super().step(closure)

    weight = nn.Parameter(torch.ones(3))
    optimizer = Halves([weight], lr=0.1)
    weight.grad = torch.ones(3)
    before = weight.grad
    along_update(optimizer, lambda: 0.0, (0.0, 1.0))
    assert weight.grad is before
    assert weight.grad.tolist() == [1.0, 1.0, 1.0]
    assert "seen" not in optimizer.param_groups[0]
