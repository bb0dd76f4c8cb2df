"""PaMaL and PaLoRA: the parameters they make, and the front they learn."""

import copy

import pytest
import torch
from torch import nn

from mtopt.pareto import uniform_preferences
from mtopt.training import PaLoRA, PaMaL, PreferenceTrainer


def network():
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def test_pamal_mixes_its_members():
    torch.manual_seed(0)
    members = [network() for _ in range(3)]
    model, p, x = PaMaL(members), torch.tensor([0.2, 0.3, 0.5]), torch.randn(4, 3)
    mixed = copy.deepcopy(members[0])
    with torch.no_grad():
        for target, *parts in zip(mixed.parameters(), *(m.parameters() for m in members), strict=True):
            target.copy_(sum(share * part for share, part in zip(p, parts, strict=True)))
    torch.testing.assert_close(model(x, preference=p), mixed(x))
    torch.testing.assert_close(model.extract(p)(x), mixed(x))
    model(x, preference=p).sum().backward()
    for share, member in zip(p, members, strict=True):
        first = members[0][0].weight.grad / p[0]
        torch.testing.assert_close(member[0].weight.grad, share * first)


def test_palora_starts_from_the_network_and_adds_low_rank():
    torch.manual_seed(0)
    plain, x, p = network(), torch.randn(4, 3), torch.tensor([0.25, 0.75])
    model = PaLoRA(plain, 2, rank=1, scale=2.0)
    torch.testing.assert_close(model(x, preference=p), plain(x))
    with torch.no_grad():
        for up in model.up:
            up.normal_()
    change = model.parameters_for(p)["0.weight"] - plain[0].weight
    expected = 2.0 * sum(share * b @ a for share, b, a in zip(p, model.up[0], model.down[0], strict=True))
    torch.testing.assert_close(change, expected)
    assert torch.linalg.matrix_rank(model.parameters_for(torch.tensor([1.0, 0.0]))["0.weight"] - plain[0].weight) == 1
    torch.testing.assert_close(model.extract(p)(x), model(x, preference=p))


def test_palora_adapts_kernels_and_may_freeze_the_base():
    model = PaLoRA(nn.Conv2d(2, 3, 3), 2, rank=2, train_base=False)
    assert model(torch.ones(1, 2, 4, 4), preference=torch.tensor([0.5, 0.5])).shape == (1, 3, 2, 2)
    assert {name for name, param in model.named_parameters() if param.requires_grad} == {"down.0", "up.0"}


class Line(PreferenceTrainer):
    """Two quadratics with the minima (1, 1) and (-1, -1): the minimum for the preference p is y = p1 - p2."""

    def losses(self, batch):
        y = self.model(torch.ones(1, 1), preference=self.preference).squeeze(0)
        return {"right": (y - 1).square().mean(), "left": (y + 1).square().mean()}


MODELS = {
    "pamal": lambda: PaMaL([nn.Linear(1, 2) for _ in range(2)]),
    "palora": lambda: PaLoRA(nn.Linear(1, 2), 2, rank=1),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("schedule", [None, uniform_preferences(2, 5, minimum=0.01)], ids=["draws", "schedule"])
def test_they_learn_the_whole_front(kind, schedule):
    torch.manual_seed(0)
    model = MODELS[kind]()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    trainer = Line(model, optimizer, "linear", num_objectives=2, seed=0, schedule=schedule)
    trainer.fit(steps=800)
    preferences = uniform_preferences(2, 9, minimum=0.05)
    y = preferences[:, 0] - preferences[:, 1]
    expected = torch.stack([(y - 1).square(), (y + 1).square()], dim=1)
    torch.testing.assert_close(trainer.front(preferences).points, expected, atol=0.12, rtol=0)


def test_a_schedule_is_taken_in_turn_and_resumes(tmp_path):
    rows = [[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]]

    def run(steps, folder):
        torch.manual_seed(0)
        model = PaLoRA(nn.Linear(1, 2), 2)
        trainer = Line(model, torch.optim.Adam(model.parameters()), "linear", num_objectives=2, schedule=rows)
        seen = []
        step = trainer.training_step
        trainer.training_step = lambda batch: (step(batch), seen.append(trainer.combiner.preference))[0]
        trainer.fit(steps=steps, checkpoint_dir=folder)
        return seen

    assert run(4, tmp_path) + run(7, tmp_path) == [rows[k % 3] for k in range(7)]


def test_what_they_refuse():
    with pytest.raises(ValueError, match="members must be two or more networks"):
        PaMaL([nn.Linear(1, 1)])
    with pytest.raises(ValueError, match="that differ; copy one"):
        PaMaL([nn.Linear(1, 1), nn.Linear(1, 2)])
    with pytest.raises(ValueError, match="rank must be a positive int"):
        PaLoRA(network(), 2, rank=0)
    with pytest.raises(ValueError, match=r"preference must have shape \(2,\)"):
        PaLoRA(network(), 2)(torch.ones(1, 3), preference=torch.ones(3))
    model = PaLoRA(nn.Linear(1, 2), 2)
    with pytest.raises(ValueError, match=r"schedule must have shape \(M, 2\)"):
        Line(model, torch.optim.Adam(model.parameters()), "linear", num_objectives=2, schedule=[[1.0]])
    with pytest.raises(ValueError, match="sum to one"):
        Line(model, torch.optim.Adam(model.parameters()), "linear", num_objectives=2, schedule=[[1.0, 1.0]])
