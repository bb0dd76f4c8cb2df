"""Every plan and every form of storage gives the direction that is computed by hand; memory, fallbacks, the log."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from benchmarks.speed._memory import peak_tensor_bytes
from mtopt.autograd import _backward
from tests.autograd.helpers import MultiHead, Reference, close, flat_gradient

RULES = ("linear", "ngdiff", "mgda", "upgrad", "graddrop", "pcgrad")  # by losses, norms, Gramian, coordinates
PLANS: dict[str, dict[str, Any]] = {
    "auto": {},
    "loop": {"plan": "loop"},
    "batched": {"plan": "batched"},
    "layers": {"plan": "layers"},
    "recompute": {"store": "recompute"},
    "bfloat16": {"store": torch.bfloat16},
    "float16": {"store": torch.float16},
}
DIGITS = {"bfloat16": 2.0**-7, "float16": 2.0**-9}


def possible(name: str, how: str) -> bool:
    return how not in ("recompute", "layers") or mtopt.create_combiner(name).needs != "jacobian"


def pairs(*names: str) -> list[tuple[str, str]]:
    """The given rules with the plans that they can be run in."""
    return [(name, how) for name in names for how in PLANS if possible(name, how)]


def taken(model: nn.Module, losses: Callable[[], Any], name: str, **options: Any) -> torch.Tensor:
    """The direction of a fresh rule."""
    params = list(model.parameters())
    for param in params:
        param.grad = None
    record = mtopt.backward(losses(), model, mtopt.create_combiner(name), **options)
    assert not record.skipped
    return flat_gradient(params)


class Network(nn.Module):
    """Losses on a network that keeps no state between two forward passes, but for what a seed fixes."""

    def __init__(self, body: nn.Module, inputs: torch.Tensor, width: int, heads: int = 3) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.inputs = body, inputs
        self.heads = nn.ModuleList(nn.Linear(width, 1) for _ in range(heads))
        self.targets = torch.randn(heads, len(inputs), 1)

    def losses(self) -> list[torch.Tensor]:
        torch.manual_seed(7)  # the masks of dropout
        features = self.body(self.inputs)
        if isinstance(features, tuple):
            features = features[0][:, -1]
        features = features.flatten(1)
        pairs = zip(self.heads, self.targets, strict=True)
        return [(k + 1) * (head(features) - target).square().mean() for k, (head, target) in enumerate(pairs)]


def network(kind: str) -> Network:
    torch.manual_seed(0)
    if kind == "dropout":
        body = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.4), nn.Linear(16, 8), nn.Tanh())
        return Network(body, torch.randn(12, 5), 8)
    if kind == "batchnorm":
        body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
        return Network(body, torch.randn(6, 2, 7, 7), 18)
    if kind == "lstm":
        return Network(nn.LSTM(4, 6, batch_first=True), torch.randn(5, 7, 4), 6)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True, norm_first=True)
    return Network(nn.Sequential(layer, nn.Flatten()), torch.randn(4, 3, 8), 24)


@pytest.mark.parametrize("kind", ["dropout", "batchnorm", "lstm", "transformer"])
@pytest.mark.parametrize("how", PLANS)
def test_the_direction_is_the_one_by_hand(kind: str, how: str) -> None:
    model = network(kind)
    reference = Reference.of(model.losses, list(model.parameters()))
    for name in RULES:
        if possible(name, how):
            expected = reference.direction(mtopt.create_combiner(name))
            found = taken(model, model.losses, name, **PLANS[how])
            tolerance = 1e-6 if name == "linear" else DIGITS.get(how, 1e-6)
            if name in ("mgda", "upgrad", "pcgrad", "graddrop") and how in DIGITS:
                tolerance *= 8  # the weights themselves are those of rounded gradients; a coin may fall otherwise
            if name == "graddrop" and how in DIGITS:
                assert float((found - expected).norm()) < 0.2 * float(expected.norm())
            else:
                close(found, expected, tolerance)


def test_a_rule_on_coordinates_cannot_recompute() -> None:
    with pytest.raises(ValueError, match="needs their coordinates"):
        mtopt.backward(MultiHead(4).losses(), MultiHead(4), mtopt.create_combiner("graddrop"), store="recompute")


@pytest.mark.parametrize(("name", "how"), pairs("ngdiff", "mgda", "graddrop"))
def test_features_do_not_change_it(name: str, how: str) -> None:
    model = MultiHead(4)
    expected = taken(model, model.losses, name, **PLANS[how])
    model.zero_grad()
    features = model.features()
    losses = [model.loss(k, features) for k in range(4)]
    record = mtopt.backward(losses, model, mtopt.create_combiner(name), features=features, **PLANS[how])
    close(flat_gradient(list(model.parameters())), expected, 1e-9)
    if how == "layers":
        assert record.plan.startswith("layer by layer")
        return
    assert how == "recompute" or record.plan.startswith("features first")
    assert ("batched" in record.plan) == (how == "batched")


class Partly(nn.Module):
    """Four losses; a module that two of them share, one that three do, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trunk, self.frozen = nn.Linear(4, 6), nn.Linear(6, 6).requires_grad_(False)
        self.two, self.three = nn.Linear(6, 6), nn.Linear(6, 6)
        self.heads = nn.ModuleList(nn.Linear(6, 1) for _ in range(4))
        self.double()
        self.inputs = torch.randn(8, 4, dtype=torch.float64)

    def loss(self, k: int) -> torch.Tensor:
        hidden = self.frozen(torch.tanh(self.trunk(self.inputs)))
        if k < 2:
            hidden = hidden + torch.tanh(self.two(hidden))
        if k > 0:
            hidden = hidden + torch.sin(self.three(hidden))
        return (self.heads[k](hidden) - k).square().mean() + 0.1

    def losses(self) -> list[torch.Tensor | None]:
        return [self.loss(k) for k in range(4)]


@pytest.mark.parametrize("private", ["own", "weighted", "combined"])
@pytest.mark.parametrize("how", [*PLANS, "callables"])
@pytest.mark.parametrize("name", ["ngdiff", "mgda"])
def test_partly_shared_modules_and_absent_losses(
    name: str, how: str, private: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_backward, "KEPT_BYTES", 0 if how == "callables" else _backward.KEPT_BYTES)
    model = Partly()
    absent = 2

    def given() -> list[Any]:
        found: list[Any] = model.losses()
        if how == "callables":
            found = [lambda k=k: model.loss(k) for k in range(4)]
        found[absent] = None
        return found

    present = [0, 1, 3]
    reference = Reference.of(
        lambda: [model.loss(k) for k in present], [p for p in model.parameters() if p.requires_grad]
    )
    expected = torch.zeros(reference.jacobian.shape[1], dtype=torch.float64)
    patterns = [tuple(column) for column in reference.reach.T.tolist()]
    weights = mtopt.create_combiner(name)
    trunk = torch.tensor([all(pattern) for pattern in patterns])
    gramian = reference.jacobian[:, trunk] @ reference.jacobian[:, trunk].T
    main = weights.weights(gramian if name == "mgda" else gramian.diagonal().sqrt(), reference.losses)
    for pattern in set(patterns):
        at = torch.tensor([p == pattern for p in patterns])
        block = reference.jacobian[:, at]
        members = [k for k in range(3) if pattern[k]]
        if private == "combined":
            at = torch.ones(len(patterns), dtype=torch.bool)
            expected = mtopt.create_combiner(name)(reference.jacobian, reference.losses)
            break
        if not members:
            continue
        if len(members) > 1:
            expected[at] = mtopt.create_combiner(name)(block[members], reference.losses[members])
        else:
            expected[at] = block[members[0]] * (main[members[0]] if private == "weighted" else 1.0)
    rule = mtopt.create_combiner(name)
    options = {} if how == "callables" else PLANS[how]
    for _ in range(2):
        model.zero_grad()
        record = mtopt.backward(given(), model, rule, private=private, **options)  # type: ignore[arg-type]
        found = flat_gradient([p for p in model.parameters() if p.requires_grad])
        close(found, expected, 16 * DIGITS[how] if how in DIGITS else 1e-9)
    streamed = name == "ngdiff" and how == "recompute"
    assert ("added up as they come" in record.plan) == streamed


def test_callables_that_reach_other_parameters_than_before_are_run_once_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_backward, "KEPT_BYTES", 0)
    model = MultiHead(4)
    params = list(model.parameters())
    rule = mtopt.create_combiner("ngdiff")
    runs = []

    def loss(k: int, head: int) -> torch.Tensor:
        runs.append(k)
        return model.loss(head, model.features())

    for heads in ([0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 1, 3]):
        model.zero_grad()
        runs.clear()
        record = mtopt.backward([lambda k=k, h=h: loss(k, h) for k, h in enumerate(heads)], model, rule)
        at_hand = Reference.of(lambda heads=heads: [model.loss(h, model.features()) for h in heads], params)
        expected = torch.zeros_like(at_hand.jacobian[0])
        for pattern in {tuple(column) for column in at_hand.reach.T.tolist()}:
            at = (torch.tensor(pattern) == at_hand.reach.T).all(1)
            members = [k for k in range(4) if pattern[k]]
            block = at_hand.jacobian[members][:, at]
            if members:
                expected[at] = block[0] if len(members) == 1 else mtopt.create_combiner("ngdiff")(block)
        close(flat_gradient(params), expected)
        assert runs == [0, 1, 2, 3]
        assert record.backwards == 4


@pytest.mark.parametrize(("name", "how"), pairs("ngdiff", "mgda", "graddrop"))
def test_a_grad_scaler_scales_the_same_direction(name: str, how: str) -> None:
    model = MultiHead(3, dtype=torch.float32)
    expected = taken(model, model.losses, name, **PLANS[how])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled = taken(model, model.losses, name, scaler=scaler, **PLANS[how])
    close(scaled / 2.0**10, expected, 1e-6)


@pytest.mark.parametrize("spoiled", ["loss", "gradient"])
@pytest.mark.parametrize(("name", "how"), pairs("ngdiff", "moco", "mgda"))
def test_a_skipped_step_changes_nothing(name: str, how: str, spoiled: str) -> None:
    model = MultiHead(4)
    rule = mtopt.create_combiner(name)
    before, state = [torch.full_like(p, 0.5) for p in model.parameters()], rule.state_dict()
    for param, start in zip(model.parameters(), before, strict=True):
        param.grad = start.clone()
    losses = model.losses()
    losses[2] = losses[2] * torch.nan if spoiled == "loss" else losses[2] + _infinite_slope(model)
    record = mtopt.backward(losses, model, rule, **PLANS[how])
    assert record.skipped
    assert "loss_2" in str(record.reason)
    for param, start in zip(model.parameters(), before, strict=True):
        assert param.grad is not None
        assert torch.equal(param.grad, start)
    assert str(rule.state_dict()) == str(state)


def _infinite_slope(model: MultiHead) -> torch.Tensor:
    """Zero, with an infinite derivative in the trunk."""
    weight = next(model.trunk.parameters())
    return (weight - weight.detach()).abs().sum().sqrt()


# -- memory ---------------------------------------------------------------------------------------------------------


class MeanRow(mtopt.JacobianCombiner):
    """A rule on coordinates that takes no memory of its own."""

    def direction(self, jacobian: torch.Tensor, losses: torch.Tensor | None = None) -> torch.Tensor:
        return jacobian.mean(0)


def peak_gradients(name: str, **options: Any) -> float:
    """The most memory that a step of six losses takes beside its graph, in gradients."""
    side, layers = 512, 12
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(side, side, generator=generator)) for _ in range(layers)]
    ends = torch.randn(6, 2, side, generator=generator)
    # products of matrices and fixed vectors: the graph keeps the parameters alone, each gradient is new memory
    losses = [sum(torch.dot(u, p @ (v + n)) for n, p in enumerate(params)) for u, v in ends]
    gc.collect()  # what other tests left is not to be freed meanwhile
    rule = MeanRow() if name == "mean_row" else mtopt.create_combiner(name)
    peak = peak_tensor_bytes(lambda: mtopt.backward(losses, params, rule, **options))  # type: ignore[arg-type]
    assert all(param.grad is not None for param in params)
    return peak / (4 * side * side * layers)


@pytest.mark.parametrize(
    ("name", "options", "most"),
    [
        ("ngdiff", {}, 2.0),  # the sum and the next
        ("mgda", {}, 6.0),  # K rows; the direction is written over the first
        ("mgda", {"store": "recompute"}, 2.0),
        ("ngdiff", {"store": "recompute"}, 2.0),
        ("mgda", {"store": torch.bfloat16}, 4.0),  # six halves and the next row, or the direction
        ("mgda", {"store": torch.float16}, 4.0),
        ("mean_row", {}, 7.0),  # the matrix and the next row, then the direction
    ],
)
def test_memory_is_what_the_plan_says(name: str, options: dict[str, Any], most: float) -> None:
    assert (
        most - 1.2 <= peak_gradients(name, **options) <= most + 0.3
    )  # what the inner products are made of, a few columns at a time


# -- choices, fallbacks, the log ------------------------------------------------------------------------------------


class NoBatchingRule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * 2.0

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return torch.from_numpy(gradient.numpy() * 2.0)  # no batch goes through numpy


def test_what_cannot_be_batched_is_looped_and_the_record_says_why(caplog: pytest.LogCaptureFixture) -> None:
    model = MultiHead(3)

    def losses() -> list[torch.Tensor]:
        features = NoBatchingRule.apply(model.features())
        return [model.loss(k, features) for k in range(3)]

    expected = taken(model, losses, "mgda", plan="loop")
    with caplog.at_level(logging.DEBUG, logger="mtopt.autograd"):
        found = taken(model, losses, "mgda", plan="batched")
    close(found, expected, 1e-12)
    (entry,) = caplog.messages
    assert entry.startswith("3 backwards; one backward pass per loss; not batched, since ")


def test_the_log_is_silent_unless_asked(caplog: pytest.LogCaptureFixture) -> None:
    model = MultiHead(3)
    with caplog.at_level(logging.INFO, logger="mtopt.autograd"):
        taken(model, model.losses, "mgda")
    assert not caplog.messages


def test_wrong_plans_and_stores_are_refused_by_name() -> None:
    model = MultiHead(3)
    for options, message in (
        (
            {"plan": "vmap"},
            "plan must be one of 'auto', 'loop', 'batched', 'features', 'layers', 'matrix_free', found 'vmap'",
        ),
        ({"store": torch.float64}, "store must be None, 'recompute', torch.bfloat16 or torch.float16"),
        ({"store": "disk"}, "store must be None, 'recompute'"),
    ):
        with pytest.raises(ValueError, match=message):
            mtopt.backward(model.losses(), model, mtopt.create_combiner("mgda"), **options)
    calls = [lambda k=k: model.loss(k, model.features()) for k in range(3)]
    with pytest.raises(ValueError, match="callable's graph is freed"):
        mtopt.backward(calls, model, mtopt.create_combiner("mgda"), store="recompute")
    assert all(param.grad is None for param in model.parameters())


def test_small_gradients_are_kept_and_the_record_has_their_cosines() -> None:
    for width, streamed in ((1 << 10, False), ((1 << 24) // 12 + 1, True)):  # three float32 gradients beyond 16 MiB
        parameter = nn.Parameter(torch.ones(width))
        losses = [(parameter * factor).sum() for factor in (1.0, 2.0, -4.0)]
        record = mtopt.backward(losses, [parameter], mtopt.create_combiner("ngdiff"))
        assert ("added up as they come" in record.plan) == streamed == (record.cosines is None)
        assert record.norms == pytest.approx({f"loss_{k}": f * width**0.5 for k, f in enumerate((1.0, 2.0, 4.0))})
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, torch.full((width,), width**-0.5))
        assert streamed or record.conflicts == 2


def test_gradients_of_very_short_rows_do_not_overflow() -> None:
    parameter = nn.Parameter(torch.ones(4))
    losses = [(parameter * factor).sum() * torch.tensor([1e-20]) * 1e-19 for factor in (1.0, 2.0, 4.0)]
    ways: tuple[dict[str, Any], ...] = ({"store": "recompute"}, {"plan": "loop"})
    for options in ways:
        parameter.grad = None
        mtopt.backward([loss * 1.0 for loss in losses], [parameter], mtopt.create_combiner("ngdiff"), **options)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, torch.full((4,), 1.5), rtol=1e-4, atol=0)
        losses = [(parameter * factor).sum() * torch.tensor([1e-20]) * 1e-19 for factor in (1.0, 2.0, 4.0)]
