"""Training a set of models, and one model for all preferences."""

import copy

import pytest
import torch
from torch import nn

import mtopt
from mtopt.pareto import hypervolume, hypervolume_weights, uniform_preferences
from mtopt.training import HyperNetwork, HypervolumeGradient, PreferenceConditioned, PreferenceTrainer, SetTrainer


class Point(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.x = nn.Parameter(start.clone())


class SetOnVLMOP2(SetTrainer):
    problem = mtopt.problems.create_problem("vlmop2")

    def member_losses(self, member, batch):
        return dict(zip(("f1", "f2"), self.problem(member.x), strict=True))


def a_set(rule, *, count=5, **options):
    models = nn.ModuleList(Point(start) for start in SetOnVLMOP2.problem.sample_starts(count, seed=0))
    return SetOnVLMOP2(models, torch.optim.Adam(models.parameters(), lr=0.05), rule, **options)


def test_a_set_steps_up_the_hypervolume():
    trainer = a_set(HypervolumeGradient(reference=[1.1, 1.1]))
    values = trainer.problem(torch.stack([member.x.detach() for member in trainer.model]))
    torch.testing.assert_close(trainer.points(), values)
    jacobians = [torch.func.jacrev(trainer.problem.evaluate)(member.x.detach()) for member in trainer.model]
    record = trainer.training_step(None)
    assert list(record.losses) == [f"f{k} {n}" for n in range(5) for k in (1, 2)]
    expected = hypervolume_weights(values, [1.1, 1.1])
    torch.testing.assert_close(
        torch.tensor(list(record.weights.values())).double(), expected.flatten(), rtol=1e-6, atol=0
    )
    for member, weights, jacobian in zip(trainer.model, expected, jacobians, strict=True):
        torch.testing.assert_close(member.x.grad, weights @ jacobian)


def test_a_set_covers_the_front_and_resumes(tmp_path):
    rule = HypervolumeGradient(reference=[1.1, 1.1])
    trainer = a_set(rule)
    before = hypervolume(trainer.points(), [1.1, 1.1])
    trainer.fit(steps=120)
    points = trainer.points()
    assert mtopt.pareto.is_nondominated(points).all()
    assert mtopt.pareto.gd(points, trainer.problem.pareto_front(2000)) < 0.01
    # what five points can have: the largest over the positions t of five points of the front, by brute ascent
    assert hypervolume(points, [1.1, 1.1]) > max(before, 0.98 * _best(5))
    halves = a_set(rule.fresh())
    halves.fit(steps=60, checkpoint_dir=tmp_path)
    resumed = a_set(rule.fresh())
    resumed.fit(steps=120, checkpoint_dir=tmp_path)
    assert torch.equal(resumed.points(), points)


def _best(count):
    """The largest hypervolume of points f = 1 - exp(-(t -+ 1)^2), found by scipy over their positions t."""
    import numpy as np
    from scipy.optimize import minimize

    def negative(t):
        points = np.stack([1 - np.exp(-((t - 1) ** 2)), 1 - np.exp(-((t + 1) ** 2))], axis=1)
        return -hypervolume(points, [1.1, 1.1])

    return -minimize(negative, np.linspace(-1, 1, count), method="Nelder-Mead", options={"maxiter": 400}).fun


def test_objectives_to_maximise_are_flipped_once():
    class Reward(SetTrainer):
        def member_losses(self, member, batch):
            cost, reward = self.problem(member.x)
            return {"cost": cost, mtopt.Objective("reward", "max"): -reward}

        problem = SetOnVLMOP2.problem

    models = nn.ModuleList(Point(start) for start in Reward.problem.sample_starts(3, seed=0))
    trainer = Reward(models, torch.optim.SGD(models.parameters(), lr=0.0), HypervolumeGradient(reference=[1.1, 1.1]))
    found = trainer.points(objectives=["cost", mtopt.Objective("reward", "max")])
    torch.testing.assert_close(found, a_set("linear", count=3).points())
    record = trainer.training_step(None)
    expected = hypervolume_weights(found, [1.1, 1.1]).flatten()
    torch.testing.assert_close(torch.tensor(list(record.weights.values())).double(), expected)


def test_wrong_sets_are_refused():
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    one = Point(torch.ones(2))
    with pytest.raises(TypeError, match=r"model must be a torch.nn.ModuleList, found Point"):
        SetOnVLMOP2(one, optimizer, "linear")
    with pytest.raises(ValueError, match="at least two models"):
        SetOnVLMOP2(nn.ModuleList([one]), optimizer, "linear")
    with pytest.raises(ValueError, match="parameters that two share"):
        SetOnVLMOP2(nn.ModuleList([one, one]), optimizer, "linear")
    with pytest.raises(ValueError, match="reference must hold one value"):
        HypervolumeGradient(reference=[1.0])
    with pytest.raises(ValueError, match="takes 3 losses of every model, found 10 of 10"):
        a_set(HypervolumeGradient(reference=[1.0] * 3)).training_step(None)


# -- one model for all preferences --------------------------------------------------------------------------------


class Line(PreferenceTrainer):
    """Two quadratics with the minima (1, 1) and (-1, -1); the answer for a preference p is known."""

    def losses(self, batch):
        y = self.model(torch.ones(1, 1), preference=self.preference).squeeze(0)
        return {"right": (y - 1).square().mean(), "left": (y + 1).square().mean()}


def line(model, rule, *, learning_rate=0.01, **options):
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    return Line(model, optimizer, rule, num_objectives=2, seed=0, **options)


def conditioned(kind):
    torch.manual_seed(0)
    if kind == "input":
        return PreferenceConditioned(nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 2)))
    return HyperNetwork(nn.Linear(1, 2), 2, hidden=() if kind == "linear" else (24,))


@pytest.mark.parametrize("kind", ["input", "hyper", "linear"])
def test_one_model_learns_the_whole_front(kind):
    trainer = line(conditioned(kind), "linear")
    trainer.fit(steps=700)
    preferences = uniform_preferences(2, 9, minimum=0.05)
    front = trainer.front(preferences)
    # the minimum of p1 (y - 1)^2 + p2 (y + 1)^2 is y = p1 - p2
    y = preferences[:, 0] - preferences[:, 1]
    expected = torch.stack([(y - 1).square(), (y + 1).square()], dim=1)
    torch.testing.assert_close(front.points, expected, atol=0.12, rtol=0)


@pytest.mark.parametrize("rule", ["epo", "pmgda", "stch", "cosmos", "pbi"])
def test_any_rule_with_a_preference_takes_the_draws(rule):
    trainer = line(conditioned("linear"), rule)
    seen = []

    class Watch(mtopt.Callback):
        def on_gradients(self, trainer, batch, record):
            seen.append((trainer.preference.tolist(), trainer.combiner.preference))

    trainer.callbacks.append(Watch())
    trainer.fit(steps=5)
    assert len({handed[0] for _, handed in seen}) == 5
    for shown, handed in seen:
        assert shown == pytest.approx(handed)
        assert min(handed) >= 1e-3
        assert sum(handed) == pytest.approx(1)
    assert trainer.preference.tolist() == [0.5, 0.5]


def test_rules_inside_wrappers_and_of_groups_take_them():
    rule = mtopt.Smoothed(mtopt.create_combiner("linear"), beta=0.5)
    trainer = line(conditioned("linear"), rule)
    group = rule.for_group("a group")
    trainer.training_step(None)
    assert rule.rule.preference == group.rule.preference != None  # noqa: E711 - a list against None


def test_a_killed_training_goes_on_with_the_same_draws(tmp_path):
    whole = line(conditioned("hyper"), "epo")
    whole.fit(steps=20)
    line(conditioned("hyper"), "epo").fit(steps=9, checkpoint_dir=tmp_path)
    resumed = line(conditioned("hyper"), "epo")
    resumed.fit(steps=20, checkpoint_dir=tmp_path)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert resumed.combiner.preference == whole.combiner.preference


def test_preferences_are_appended_to_vectors_and_images():
    model = PreferenceConditioned(nn.Identity())
    preference = torch.tensor([0.2, 0.8])
    vectors, images = torch.rand(3, 4), torch.rand(3, 1, 5, 6)
    out = model(vectors, preference=preference)
    assert torch.equal(out[:, :4], vectors)
    assert torch.equal(out[:, 4:], preference.expand(3, 2))
    out = model(images, preference=preference)
    assert out.shape == (3, 3, 5, 6)
    assert torch.equal(out[:, 1:], preference.reshape(1, 2, 1, 1).expand(3, 2, 5, 6))
    each = torch.rand(3, 2)
    assert torch.equal(model(vectors, preference=each)[:, 4:], each)
    with pytest.raises(ValueError, match=r"x must be floating point of shape"):
        model(torch.ones(3, 4, dtype=torch.long), preference=preference)
    with pytest.raises(ValueError, match=r"preference must have shape \(K,\) or \(3, K\), found \(2, 2\)"):
        model(vectors, preference=each[:2])


def test_a_hypernetwork_starts_from_its_template_and_gives_plain_models():
    torch.manual_seed(0)
    template = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))
    template[0].bias.requires_grad_(False)
    network = HyperNetwork(copy.deepcopy(template), 3, hidden=(5, 6))
    x, preference = torch.rand(7, 3), torch.tensor([0.2, 0.3, 0.5])
    torch.testing.assert_close(network(x, preference=preference), template(x))
    assert not any(name.startswith("template") for name, p in network.named_parameters() if p.requires_grad)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(x, preference=preference).square().sum().backward()
        optimizer.step()
    network.eval()
    plain = network.extract(preference).eval()
    torch.testing.assert_close(plain(x), network(x, preference=preference))
    other = network(x, preference=torch.tensor([1.0, 0.0, 0.0]))
    assert not torch.allclose(plain(x), other, atol=1e-3)
    assert torch.equal(plain[0].bias, template[0].bias)
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in template.named_parameters()}
    with pytest.raises(ValueError, match=r"preference must have shape \(3,\), found \(2,\)"):
        network(x, preference=torch.ones(2) / 2)


def test_a_linear_hypernetwork_mixes_its_corners():
    network = HyperNetwork(nn.Linear(3, 2), 2, hidden=())
    nn.init.normal_(network.head.weight)
    nn.init.normal_(network.head.bias)
    first, second = (network.parameters_for(corner)["weight"] for corner in torch.eye(2))
    mixed = network.parameters_for(torch.tensor([0.25, 0.75]))["weight"]
    torch.testing.assert_close(mixed, 0.25 * first + 0.75 * second)


def test_wrong_conditioned_trainings_are_refused():
    with pytest.raises(ValueError, match="combiner must be a rule with a preference, found PCGrad"):
        line(conditioned("linear"), "pcgrad")
    with pytest.raises(ValueError, match=r"minimum must lie in \[0, 1/2\), found 0.5"):
        line(conditioned("linear"), "linear", minimum=0.5)
    with pytest.raises(ValueError, match="concentration must be positive and finite, found 0"):
        line(conditioned("linear"), "linear", concentration=0)
    trainer = line(conditioned("linear"), "linear")
    with (
        pytest.raises(ValueError, match=r"preference must have shape \(2,\), found \(3,\)"),
        trainer.at([0.2, 0.3, 0.5]),
    ):
        pass
    with pytest.raises(ValueError, match="template must have parameters that require gradients"):
        HyperNetwork(nn.Linear(1, 1).requires_grad_(False), 2)
