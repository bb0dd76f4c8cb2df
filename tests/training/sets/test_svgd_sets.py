"""Training a set of models by MOO-SVGD."""

import copy

import pytest
import torch
from torch import nn

import mtopt
from mtopt.pareto import is_nondominated, moo_svgd
from mtopt.training import SVGDTrainer

INPUTS = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def small_models(count=4):
    """Copies of one network with small changes."""
    generator = torch.Generator().manual_seed(1)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    models = nn.ModuleList(copy.deepcopy(network) for _ in range(count))
    with torch.no_grad():
        for param in models.parameters():
            param.copy_(0.3 * torch.randn(param.shape, dtype=param.dtype, generator=generator))
    return models


def two_losses(outputs):
    return ((outputs - 1) ** 2).mean(), ((outputs + 1) ** 2).mean()


class Pair(SVGDTrainer):
    """The losses of a batch: distances to two constants, the second as a gain to maximise."""

    def member_losses(self, member, batch):
        right, left = two_losses(member(batch))
        return {"right": right, mtopt.Objective("nearness", "max"): -left}


def svgd_by_hand(models, **options):
    points, jacobians = [], []
    for member in models:
        names, params = zip(*member.named_parameters(), strict=True)

        def losses(*values, member=member, names=names):
            return torch.stack(two_losses(torch.func.functional_call(member, dict(zip(names, values)), (INPUTS,))))  # noqa: B905

        values = tuple(param.detach() for param in params)
        points.append(losses(*values))
        blocks = torch.func.jacrev(losses, argnums=tuple(range(len(values))))(*values)
        jacobians.append(torch.cat([block.reshape(2, -1) for block in blocks], dim=1))
    return torch.stack(points), moo_svgd(torch.stack(points), torch.stack(jacobians), **options)


@pytest.mark.parametrize("options", [{}, {"repulsion": 0.2, "bandwidth": 0.7}])
def test_a_step_is_moo_svgd_on_the_models_jacobians(options):
    models = small_models()
    points, expected = svgd_by_hand(models, **options)
    start = [nn.utils.parameters_to_vector(member.parameters()).detach() for member in models]
    # the order of the optimizer's parameters is not that of the models
    optimizer = torch.optim.SGD(list(models.parameters())[::-1], lr=0.5)
    trainer = Pair(models, optimizer, **options)
    record = trainer.training_step(INPUTS)
    assert list(record.losses) == [f"{name} {n}" for n in range(4) for name in ("right", "nearness")]
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    values = torch.tensor(list(record.losses.values()), dtype=torch.float64)
    torch.testing.assert_close(values, (points * signs).flatten(), rtol=0, atol=1e-12)
    assert (record.weights, record.skipped, record.backwards) == (None, False, 8)
    for member, before, direction in zip(models, start, expected, strict=True):
        found = torch.cat([param.grad.flatten() for param in member.parameters()])
        torch.testing.assert_close(found, direction, rtol=0, atol=1e-10)
        after = nn.utils.parameters_to_vector(member.parameters())
        torch.testing.assert_close(after, before - 0.5 * direction, rtol=0, atol=1e-10)


def test_gradients_add_to_those_that_are_there():
    models = small_models()
    expected = svgd_by_hand(models)[1]
    trainer = Pair(models, torch.optim.SGD(models.parameters(), lr=0.1))
    for _ in range(2):
        trainer.make_gradients(INPUTS)
    found = torch.stack([torch.cat([param.grad.flatten() for param in member.parameters()]) for member in models])
    torch.testing.assert_close(found, 2 * expected, rtol=0, atol=1e-10)


def test_a_scaler_changes_nothing_but_its_factor():
    models = small_models()  # float64, which autocast leaves alone: what differs is the scaler
    expected = svgd_by_hand(models)[1]
    trainer = Pair(models, torch.optim.SGD(models.parameters(), lr=0.1), autocast=torch.float16)
    trainer.training_step(INPUTS)
    found = torch.stack([torch.cat([param.grad.flatten() for param in member.parameters()]) for member in models])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    scale, before = trainer.precision.scaler.get_scale(), copy.deepcopy(models.state_dict())
    assert trainer.training_step(INPUTS * torch.nan).skipped
    assert trainer.precision.scaler.get_scale() == scale / 2
    assert all(torch.equal(value, before[name]) for name, value in models.state_dict().items())


def test_frozen_and_unreached_parameters_are_left_alone():
    models = small_models()
    for member in models:
        member[0].bias.requires_grad_(False)
        member.register_parameter("idle", nn.Parameter(torch.ones(3).double()))
    Pair(models, torch.optim.SGD(models.parameters(), lr=0.1, weight_decay=0.1)).training_step(INPUTS)
    for member in models:
        assert member.idle.grad is None
        assert member[0].bias.grad is None
        assert member.idle.tolist() == [1, 1, 1]
        assert member[2].bias.grad is not None


@pytest.mark.parametrize("fault", ["loss", "gradient", "overflow"])
def test_a_step_with_nan_is_skipped_for_all_models(fault):
    class Faulty(Pair):
        def member_losses(self, member, batch):
            right, left = two_losses(member(batch))
            if member is self.model[2]:
                if fault == "loss":
                    left = left * torch.nan
                elif fault == "gradient":
                    left = left + (member[0].bias.sum() * 0).sqrt()
                else:
                    left = left + 1e160
            return {"right": right, "left": left}

    models = small_models()
    before = copy.deepcopy(models.state_dict())
    trainer = Faulty(models, torch.optim.Adam(models.parameters()))
    record = trainer.training_step(INPUTS)
    if fault == "overflow":  # of the squared distances between points
        assert record.reason == "non-finite direction, of finite gradients"
    else:
        assert record.reason == f"non-finite {fault}: left 2"
    assert record.skipped
    assert all(param.grad is None for param in models.parameters())
    assert all(torch.equal(value, before[name]) for name, value in models.state_dict().items())
    trainer.strict = True
    with pytest.raises(mtopt.NonFiniteError, match="non-finite"):
        trainer.training_step(INPUTS)


class Point(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.x = nn.Parameter(start.clone())


class Quadratics(SVGDTrainer):
    """|x - a|^2 and |x + a|^2: the front is the segment from -a to a."""

    def member_losses(self, member, batch):
        return {"right": (member.x - 1).square().sum(), "left": (member.x + 1).square().sum()}


def quadratics(count=4):
    generator = torch.Generator().manual_seed(3)
    starts = torch.tensor([1.0, -1.0]).double() + 0.1 * torch.randn(count, 2, dtype=torch.float64, generator=generator)
    models = nn.ModuleList(Point(start) for start in starts)
    optimizer = torch.optim.Adam(models.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=200)
    return Quadratics(models, optimizer, repulsion=0.1, scheduler=scheduler)


def test_models_spread_over_a_convex_front_and_resume_bit_for_bit(tmp_path):
    trainer = quadratics()
    before = trainer.points()
    trainer.fit(steps=200)
    points = trainer.points()
    assert is_nondominated(points).all()
    assert torch.pdist(points).min() > torch.pdist(before).max()
    front = (points[:, 0] / 2).sqrt(), (points[:, 1] / 2).sqrt()  # of a front point: both distances along the segment
    torch.testing.assert_close(front[0] + front[1], torch.full_like(front[0], 2), rtol=0, atol=0.02)
    quadratics().fit(steps=80, checkpoint_dir=tmp_path)
    resumed = quadratics()
    resumed.fit(steps=200, checkpoint_dir=tmp_path)
    assert resumed.step == 200
    for one, other in zip(trainer.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_another_repulsion_is_noticed(tmp_path):
    trainer = quadratics()
    trainer.fit(steps=2, checkpoint_dir=tmp_path)
    other = quadratics()
    other.combiner.repulsion = 0.2
    with pytest.warns(mtopt.training.CheckpointWarning, match=r"repulsion=0\.1.*repulsion=0\.2"):
        other.fit(steps=3, checkpoint_dir=tmp_path)


def test_wrong_sets_are_refused():
    models = small_models()
    optimizer = torch.optim.SGD(models.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=r"leave \['accumulate', 'store'\] out"):
        Pair(models, optimizer, accumulate=2, store="recompute")
    with pytest.raises(ValueError, match="at least two models"):
        Pair(models[:1], optimizer)
    with pytest.raises(ValueError, match=r"models 0 and 3 differ in \['0.bias', '0.weight'"):
        Pair(models, torch.optim.SGD(models[:3].parameters(), lr=0.1))
    with pytest.raises(ValueError, match="optimizer holds 1 parameters that are in none of the models"):
        Pair(models, torch.optim.SGD([*models.parameters(), nn.Parameter(torch.ones(1))], lr=0.1))
    models[1][0] = nn.Linear(3, 4)
    with pytest.raises(ValueError, match=r"models 0 and 1 differ in \['0.bias', '0.weight'\]"):
        Pair(models, torch.optim.SGD(models.parameters(), lr=0.1))

    class Uneven(Quadratics):
        gone = False

        def member_losses(self, member, batch):
            losses = super().member_losses(member, batch)
            if member is self.model[0]:
                return {"right": losses["right"], "left": None} if self.gone else {"other": losses["right"]}
            return losses

    members = quadratics().model
    trainer = Uneven(members, torch.optim.SGD(members.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="must name the same losses for each model"):
        trainer.training_step(None)
    trainer.gone = True
    with pytest.raises(ValueError, match=r"losses \['left 0'\] are None"):
        trainer.training_step(None)
