"""Micro-batches: what is summed is the raw gradients, and the rule is applied once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import mtopt
from mtopt.combiners import Combiner
from mtopt.testing._state import same
from tests.autograd.helpers import close, every_rule, flat_gradient

MICRO = 3
ROWS = 12


class Net(nn.Module):
    """A trunk and two heads on a batch that can be cut."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.trunk = nn.Linear(4, 5)
        self.heads = nn.ModuleList(nn.Linear(5, 1) for _ in range(2))
        for param in self.parameters():
            nn.init.normal_(param, std=0.7, generator=generator)
        self.register_buffer("inputs", torch.randn(ROWS, 4, generator=generator))
        self.register_buffer("targets", torch.randn(ROWS, 2, generator=generator))
        self.to(dtype)

    def losses(self, rows: slice = slice(None), heads: int = 2) -> list[torch.Tensor]:
        features = torch.tanh(self.trunk(self.inputs[rows]))
        errors = [head(features)[:, 0] - self.targets[rows, k] for k, head in enumerate(self.heads)]
        return [(k + 1) * error.square().mean() + 0.1 for k, error in enumerate(errors)][:heads]


def micro_batches(count: int = MICRO) -> list[slice]:
    size = ROWS // count
    return [slice(start, start + size) for start in range(0, ROWS, size)]


def accumulated(net: Net, rule: Combiner, accumulator: mtopt.JacobianAccumulator | None = None, **options: Any) -> Any:
    accumulator = accumulator or mtopt.JacobianAccumulator(net, 2)
    for rows in micro_batches():
        first, second = net.losses(rows)
        accumulator.add(0, first / MICRO, retain_graph=True)
        accumulator.add(1, second / MICRO)
    return accumulator.combine(rule, **options)


@pytest.mark.parametrize("name", every_rule())
def test_micro_batches_are_one_big_batch(name: str) -> None:
    whole, cut = Net(), Net()
    on_whole, on_cut = mtopt.create_combiner(name), mtopt.create_combiner(name)
    for _ in range(3):  # rules with a state move, too
        expected = mtopt.backward(whole.losses(), whole, on_whole)
        found = accumulated(cut, on_cut)
        close(flat_gradient(list(cut.parameters())), flat_gradient(list(whole.parameters())), 1e-9)
        assert found.losses == pytest.approx(expected.losses)
        assert (found.weights is None) == (expected.weights is None)
        assert found.weights is None or found.weights == pytest.approx(expected.weights)
        assert found.backwards == 2 * MICRO
        for net in (whole, cut):
            with torch.no_grad():
                step = 0.05 / flat_gradient(list(net.parameters())).norm()
                for param in net.parameters():
                    param -= step * param.grad
            net.zero_grad()


@pytest.mark.parametrize("private", ["own", "weighted", "combined"])
def test_heads_get_what_backward_gives_them(private: Any) -> None:
    whole, cut = Net(), Net()
    mtopt.backward(whole.losses(), whole, mtopt.create_combiner("mgda"), private=private)
    accumulated(cut, mtopt.create_combiner("mgda"), private=private)
    close(flat_gradient(list(cut.parameters())), flat_gradient(list(whole.parameters())))


@pytest.mark.parametrize("name", ["ngdiff", "nash_mtl", "config", "mgda", "pcgrad"])
def test_combining_each_micro_batch_is_another_method(name: str) -> None:
    once, each = Net(), Net()
    accumulated(once, mtopt.create_combiner(name))
    rule = mtopt.create_combiner(name)
    for rows in micro_batches():
        mtopt.backward([loss / MICRO for loss in each.losses(rows)], each, rule)
    at_once, one_by_one = (flat_gradient(list(net.trunk.parameters())) for net in (once, each))
    assert (at_once - one_by_one).norm() > 0.01 * at_once.norm()


def test_ngdiff_by_hand() -> None:
    net = Net()
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(net.trunk.parameters()))])
        for loss in (net.losses()[0], net.losses()[1])
    ]
    accumulated(net, mtopt.create_combiner("ngdiff"))
    close(flat_gradient(list(net.trunk.parameters())), sum(row / row.norm() for row in rows))


def test_names_senses_and_sums_of_losses() -> None:
    net, expected = Net(), Net()
    accumulator = mtopt.JacobianAccumulator(net, [mtopt.Objective("gain", sense="max"), "cost"])
    for rows in micro_batches(2):
        accumulator.add("gain", lambda rows=rows: net.losses(rows)[0])
        accumulator.add("cost", net.losses(rows)[1])
    record = accumulator.combine(mtopt.create_combiner("mgda"))
    first, second = (sum(parts) for parts in zip(*(expected.losses(rows) for rows in micro_batches(2)), strict=True))
    wanted = mtopt.backward(
        {mtopt.Objective("gain", sense="max"): first, "cost": second}, expected, mtopt.create_combiner("mgda")
    )
    close(flat_gradient(list(net.parameters())), flat_gradient(list(expected.parameters())))
    assert record.losses == pytest.approx(wanted.losses)
    assert record.losses["gain"] > 0


def test_what_is_absent() -> None:
    net, expected = Net(), Net()
    accumulator = mtopt.JacobianAccumulator(net, 3)
    for rows in micro_batches():
        accumulator.add(2, net.losses(rows)[1])
        accumulator.add(0, None)
    accumulator.add(1, net.losses(slice(0, 4))[0])  # in one micro-batch only
    rule = mtopt.create_combiner("moco")
    record = accumulator.combine(rule)
    second = sum(expected.losses(rows)[1] for rows in micro_batches())
    reference = mtopt.create_combiner("moco")
    mtopt.backward([None, expected.losses(slice(0, 4))[0], second], expected, reference)
    assert list(record.losses) == ["loss_1", "loss_2"]
    close(flat_gradient(list(net.parameters())), flat_gradient(list(expected.parameters())))
    assert rule.state_dict()["state"]["_members"] == [1, 2]


def test_it_starts_anew_after_combine_and_adds_to_grad() -> None:
    net, once = Net(), Net()
    accumulator = mtopt.JacobianAccumulator(net, 2)
    rule = mtopt.create_combiner("upgrad")
    accumulated(net, rule, accumulator)
    accumulated(net, rule, accumulator)
    accumulated(once, rule)
    close(flat_gradient(list(net.parameters())), 2 * flat_gradient(list(once.parameters())))
    with pytest.raises(ValueError, match="nothing was added since the last combine"):
        accumulator.combine(rule)
    accumulator.add(0, net.losses()[0])
    accumulator.clear()
    with pytest.raises(ValueError, match="nothing was added"):
        accumulator.combine(rule)


@pytest.mark.parametrize("name", ["linear", "ngdiff", "nash_mtl", "moco", "gradvac"])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_one_poisoned_micro_batch_skips_the_step_and_nothing_stays(name: str, bad: str) -> None:
    net = Net()
    accumulator, rule = mtopt.JacobianAccumulator(net, ["a", "b"]), mtopt.create_combiner(name)

    def poisoned() -> None:
        for number, rows in enumerate(micro_batches()):
            first, second = net.losses(rows)
            accumulator.add("a", first, retain_graph=True)
            spoilt = second + torch.inf if bad == "loss" else second + (net.trunk.weight * 0).abs().sqrt().sum()
            accumulator.add("b", spoilt if number == 1 else second)

    accumulated(net, rule, accumulator)
    gradient, state = flat_gradient(list(net.parameters())), copy.deepcopy(rule.state_dict())
    poisoned()
    record = accumulator.combine(rule)
    assert record.skipped
    assert record.reason == f"non-finite {bad}: b"
    assert torch.equal(flat_gradient(list(net.parameters())), gradient)
    assert same(rule.state_dict(), state)
    assert not accumulated(net, rule, accumulator).skipped
    poisoned()
    with pytest.raises(mtopt.NonFiniteError, match=f"{bad}: b"):
        accumulator.combine(rule, strict=True)
    assert not accumulated(net, rule, accumulator).skipped


def test_with_a_grad_scaler() -> None:
    net, plain = Net(torch.float32), Net(torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    accumulator, rule = mtopt.JacobianAccumulator(net, 2, scaler=scaler), mtopt.create_combiner("nash_mtl")
    record = accumulated(net, rule, accumulator)
    expected = accumulated(plain, mtopt.create_combiner("nash_mtl"))
    assert record.norms == pytest.approx(expected.norms, rel=1e-5)
    close(flat_gradient(list(net.parameters())), 256.0 * flat_gradient(list(plain.parameters())), 1e-5)
    scaler.unscale_(optimizer)
    close(flat_gradient(list(net.parameters())), flat_gradient(list(plain.parameters())), 1e-5)
    scaler.step(optimizer)
    scaler.update()
    net.zero_grad()

    accumulator.add(0, net.losses()[0] * torch.inf)
    assert accumulator.combine(rule).skipped
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 128.0

    net.zero_grad()
    accumulator.add(0, net.losses()[0])
    scaler.update(64.0)
    with pytest.raises(ValueError, match=r"factor was 128 when the first loss was added and is 64 now"):
        accumulator.combine(rule)


def test_16_bit_gradients_are_summed_in_float32() -> None:
    """Terms of 1/256 of a bfloat16 sum would each be lost."""
    weight = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    other = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
    accumulator = mtopt.JacobianAccumulator([weight, other], 2)
    accumulator.add(0, weight.sum() + 0 * other.sum())
    for _ in range(256):
        accumulator.add(0, (weight / 256).sum())
    accumulator.add(1, weight.sum())
    accumulator.combine(mtopt.create_combiner("linear", reduction="sum"), private="combined")
    assert weight.grad is not None
    assert weight.grad.dtype == torch.bfloat16
    assert weight.grad.tolist() == [3.0, 3.0]


@pytest.mark.parametrize("name", ["mgda", "trimmed_mean", "moco"])
def test_a_bfloat16_model(name: str) -> None:
    net, exact = Net(torch.bfloat16), Net(torch.float64)
    accumulated(net, mtopt.create_combiner(name), private="combined")
    accumulated(exact, mtopt.create_combiner(name), private="combined")
    close(flat_gradient(list(net.parameters())), flat_gradient(list(exact.parameters())), 0.05)


def test_a_gradient_that_autograd_hands_out_expanded_or_twice() -> None:
    left, right = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    accumulator = mtopt.JacobianAccumulator([left, right], 1)
    for _ in range(3):
        accumulator.add(0, (left + right).sum())
    accumulator.combine(mtopt.create_combiner("linear"))
    assert left.grad is not None
    assert right.grad is not None
    assert left.grad.tolist() == right.grad.tolist() == [3.0, 3.0, 3.0]


def test_weights_that_are_kept_count_combined_steps() -> None:
    net = Net()
    rule = mtopt.Every(mtopt.create_combiner("mgda"), 2)
    accumulator = mtopt.JacobianAccumulator(net, 2)
    first = accumulated(net, rule, accumulator)
    with torch.no_grad():
        net.trunk.weight += 0.3
    kept, asked = accumulated(net, rule, accumulator), accumulated(net, rule, accumulator)
    assert kept.weights == first.weights
    assert asked.weights != first.weights


def test_errors() -> None:
    net = Net()
    accumulator = mtopt.JacobianAccumulator(net, ["a", "b"])
    for k in ("c", 2, -1, True):
        with pytest.raises(KeyError, match=r"no objective .*: k must be a position below 2 or one of \['a', 'b'\]"):
            accumulator.add(k, net.losses()[0])
    with pytest.raises(ValueError, match="loss 'a' reaches none of params"):
        accumulator.add("a", nn.Parameter(torch.ones(())) * 2)
    with pytest.raises(ValueError, match="loss 'b' must be a scalar"):
        accumulator.add("b", net.trunk.weight * 2)
    accumulator.add("a", net.losses()[0])
    with pytest.raises(TypeError, match="create it once"):
        accumulator.combine("mgda")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes 3 independent mini-batches"):
        accumulator.combine(mtopt.create_combiner("modo"))
    for wrong in (0, True, [], "ab", 1.5):
        with pytest.raises(ValueError, match="num_objectives must be a number >= 1"):
            mtopt.JacobianAccumulator(net, wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="distinct names"):
        mtopt.JacobianAccumulator(net, ["a", "a"])
