"""TCH-Set and STCH-Set against autograd, and the split of objectives among models."""

import itertools

import pytest
import torch
from torch import nn

from mtopt.training import SetTrainer, TchebycheffSet


def stated(losses, mu, p, z):
    least = -mu * torch.logsumexp(-losses / mu, 0)
    return mu * torch.logsumexp(p * (least - z) / mu, 0)


@pytest.mark.parametrize("mu", [0.05, 1.0])
def test_the_weights_are_the_gradient_of_what_it_states(mu):
    losses = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    p, z = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), torch.tensor([0.0, 0.1, -0.1, 0.0])
    stated(losses, mu, p, z).backward()
    rule = TchebycheffSet(num_objectives=4, mu=mu, preference=p.tolist(), reference=z.tolist())
    torch.testing.assert_close(rule.weights(losses.detach().flatten()), losses.grad.flatten())


def test_without_smoothing_one_model_gets_the_worst_served_objective():
    losses = torch.tensor([[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]])  # least: 1, 2, 3
    found = TchebycheffSet(num_objectives=3, mu=0).weights(losses.flatten()).reshape(2, 3)
    assert found.tolist() == [[0, 0, 1], [0, 0, 0]]
    near = TchebycheffSet(num_objectives=3, mu=1e-3).weights(losses.flatten())
    torch.testing.assert_close(near.reshape(2, 3), found)


def test_large_losses_do_not_overflow():
    losses = torch.tensor([1e6, -1e6, 1e-6, 3.0], dtype=torch.float64)
    assert bool(TchebycheffSet(num_objectives=2, mu=1e-3).weights(losses).isfinite().all())


CENTRES = torch.tensor([[0.0], [1.0], [10.0], [12.0]])


class TwoForFour(SetTrainer):
    def member_losses(self, member, batch):
        return {f"f{k}": (member.weight[0] - centre).square().sum() for k, centre in enumerate(CENTRES)}


def best_pair():
    """Two points for four squared distances: of all splits of the objectives, the one whose worse centre is best."""

    def radius(split, side):
        group = [centre for centre, chosen in zip(CENTRES[:, 0].tolist(), split, strict=True) if chosen == side]
        return (max(group) - min(group)) / 2 if group else 0.0

    return min(max(radius(split, 0), radius(split, 1)) for split in itertools.product((0, 1), repeat=4))


def test_two_models_share_four_objectives():
    models = nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(2))
    for model, start in zip(models, (4.0, 7.0), strict=True):
        nn.init.constant_(model.weight, start)
    trainer = TwoForFour(models, torch.optim.Adam(models.parameters(), lr=0.1), TchebycheffSet(num_objectives=4))
    trainer.fit(steps=600)
    worst = trainer.points().min(0).values.max()
    assert float(worst) == pytest.approx(best_pair() ** 2, abs=0.2)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="takes the 3 losses of every model, found 4 of 4"):
        TchebycheffSet(num_objectives=3).weights(torch.ones(4))
    with pytest.raises(ValueError, match="mu must be non-negative"):
        TchebycheffSet(num_objectives=2, mu=-1.0)
    with pytest.raises(ValueError, match="preference must have 2 entries"):
        TchebycheffSet(num_objectives=2, preference=[1.0])
    with pytest.raises(ValueError, match="sum to one"):
        TchebycheffSet(num_objectives=2, preference=[1.0, 1.0])
