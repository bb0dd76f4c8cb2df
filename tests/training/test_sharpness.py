"""Sharpness-aware gradients against closed forms, and two minima of which one is sharp."""

import pytest
import torch
from torch import nn

import mtopt
from mtopt.training import SharpnessAware

CURVATURES = torch.tensor([[1.0, 4.0], [9.0, 0.25]], dtype=torch.float64)
CENTRES = torch.tensor([[1.0, -1.0], [0.0, 2.0]], dtype=torch.float64)


def quadratics(theta):
    """``sum_j a_kj (x_j - c_kj)² / 2``, whose gradient at x is ``a_k (x - c_k)``."""
    return dict(zip(("first", "second"), (CURVATURES * (theta - CENTRES) ** 2).sum(1) / 2, strict=True))


def slopes(at):
    return CURVATURES * (at - CENTRES)


def start():
    return nn.Parameter(torch.tensor([0.5, 0.3], dtype=torch.float64))


def test_each_gradient_is_that_at_its_own_perturbed_point():
    theta, rho = start(), 0.2
    before = theta.detach().clone()
    flat = SharpnessAware([theta], rho=rho)
    record = mtopt.backward(flat(lambda: quadratics(theta)), [theta], mtopt.create_combiner("linear", reduction="sum"))
    here = slopes(before)
    points = before + rho * here / here.norm(dim=1, keepdim=True)
    expected = CURVATURES * (points - CENTRES)
    torch.testing.assert_close(theta.grad, expected.sum(0))
    assert torch.equal(theta.detach(), before)
    assert record.losses["first"] == pytest.approx(float(quadratics(before)["first"]))


def test_rules_on_gradients_see_the_perturbed_ones():
    theta, rho = start(), 0.1
    flat = SharpnessAware([theta], rho=rho)
    record = mtopt.backward(flat(lambda: quadratics(theta)), [theta], mtopt.create_combiner("mgda"))
    here = slopes(theta.detach())
    rows = CURVATURES * (theta.detach() + rho * here / here.norm(dim=1, keepdim=True) - CENTRES)
    torch.testing.assert_close(theta.grad, mtopt.create_combiner("mgda")(rows))
    assert record.norms["second"] == pytest.approx(float(rows[1].norm()))


def visited(theta, flat):
    """The points at which the losses were run, and the sums of these runs."""
    points = []

    def losses():
        points.append(theta.detach().clone())
        return quadratics(theta)

    flat(losses)
    return torch.stack(points)


def test_one_point_for_all_losses_is_along_the_mean_gradient():
    theta = start()
    points = visited(theta, SharpnessAware([theta], rho=0.3, beta=0))
    mean = slopes(theta.detach()).mean(0)
    assert len(points) == 1 + 2
    torch.testing.assert_close(points[1:], (theta.detach() + 0.3 * mean / mean.norm()).expand(2, -1))


@pytest.mark.parametrize("seed", range(5))
def test_directions_of_their_own_are_uphill_and_cost_forwards(seed):
    theta = start()
    points = visited(theta, SharpnessAware([theta], rho=0.3, beta=1.0, eps=1e-4, seed=seed))
    assert len(points) == 1 + 3 * 2
    for k, at in enumerate((points[3], points[6])):
        step = at - theta.detach()
        assert float(step.norm()) == pytest.approx(0.3)
        assert float(step @ slopes(theta.detach())[k]) > 0


def test_the_mixture_is_samos():
    theta, beta = start(), 0.4
    points = visited(theta, SharpnessAware([theta], rho=0.3, beta=beta, eps=1e-4))
    mean = slopes(theta.detach()).mean(0)
    z = (points[1] - points[2]) / (points[1] - points[2]).norm()
    z = z * (z @ slopes(theta.detach())[0]).sign()
    v = (1 - beta) * mean + beta * mean.norm() * z
    torch.testing.assert_close(points[3], theta.detach() + 0.3 * v / v.norm())


def valley(at):
    """``h(v) u² / 2`` with ``h = 1 + v²``: all points with u = 0 are minima, of curvature h(v), flattest at v = 0."""
    u, v = at
    return (1 + v**2) * u**2 / 2


@pytest.mark.parametrize(("options", "low", "high"), [(None, 0.9, 1.0), ({}, 0.0, 0.02), ({"beta": 0.3}, 0.0, 0.02)])
def test_of_many_minima_the_flat_one_is_found(options, low, high):
    at = nn.Parameter(torch.tensor([0.1, 1.0], dtype=torch.float64))
    optimizer = torch.optim.SGD([at], lr=0.1)
    flat = (lambda run: run()) if options is None else SharpnessAware([at], rho=0.4, **options)
    for _ in range(400):
        optimizer.zero_grad()
        mtopt.backward(flat(lambda: [valley(at), 2 * valley(at)]), [at], mtopt.create_combiner("pcgrad"))
        optimizer.step()
    assert float(at[0].detach().abs()) < 0.3
    assert low <= float(at[1].detach().abs()) <= high


def test_dropout_masks_and_statistics_are_those_of_one_forward():
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    data = torch.randn(16, 3)
    outputs = []

    def losses():
        out = model(data)
        outputs.append(out.detach().clone())
        return list(out.square().mean(0))

    flat = SharpnessAware(model.parameters(), rho=1e-9)
    torch.manual_seed(0)
    flat(losses)
    after = torch.get_rng_state()
    assert int(model[1].num_batches_tracked) == 1
    torch.testing.assert_close(outputs[1], outputs[0])
    torch.manual_seed(0)
    model(data)
    assert torch.equal(torch.get_rng_state(), after)


def test_heads_are_still_and_keep_their_own_gradients():
    trunk, heads = nn.Linear(2, 2), [nn.Linear(2, 1), nn.Linear(2, 1)]
    data = torch.randn(5, 2)
    flat = SharpnessAware(trunk.parameters(), rho=0.1, still=[p for head in heads for p in head.parameters()])
    params = [*trunk.parameters(), *(p for head in heads for p in head.parameters())]
    mtopt.backward(
        flat(lambda: [head(trunk(data)).square().mean() for head in heads]), params, mtopt.create_combiner("mgda")
    )
    assert all(param.grad is not None for param in params)


class Trained(mtopt.MultiLossTrainer):
    def losses(self, batch):
        return self.flat(lambda: {"a": self.model(batch).square().mean(), "b": (self.model(batch) - 1).square().mean()})


def test_in_a_trainer_and_without_gradients_the_losses_pass_through():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    trainer = Trained(model, torch.optim.SGD(model.parameters(), lr=0.1), "pcgrad")
    trainer.flat = SharpnessAware(model.parameters(), rho=0.05)
    batch = torch.randn(8, 3)
    trainer.fit([batch] * 20, epochs=1)
    values = trainer.evaluate([batch])
    assert values["a"] == pytest.approx(float(model(batch).square().mean().detach()))


def test_a_generator_goes_on():
    theta = start()
    flat, other = (SharpnessAware([theta], beta=0.5) for _ in range(2))
    visited(theta, flat)
    other.load_state_dict(flat.state_dict())
    assert torch.equal(visited(theta, flat), visited(theta, other))


def test_absent_losses_and_objectives_to_maximise():
    theta = start()
    flat = SharpnessAware([theta], rho=0.1)
    found = flat(lambda: {mtopt.Objective("up", "max"): -quadratics(theta)["first"], "gone": None})
    record = mtopt.backward(found, [theta], mtopt.create_combiner("linear"))
    assert list(record.losses) == ["up"]
    here = slopes(theta.detach())[0]
    expected = CURVATURES[0] * (theta.detach() + 0.1 * here / here.norm() - CENTRES[0])
    torch.testing.assert_close(theta.grad / theta.grad.norm(), expected / expected.norm())


def test_what_it_refuses():
    with pytest.raises(ValueError, match="rho and eps must be positive"):
        SharpnessAware([start()], rho=0.0)
    with pytest.raises(ValueError, match="beta must be in"):
        SharpnessAware([start()], beta=2.0)
    with pytest.raises(ValueError, match="params must hold a parameter"):
        SharpnessAware([])
    with pytest.raises(TypeError, match="are callables"):
        SharpnessAware([start()])(lambda: [lambda: torch.zeros(())])
