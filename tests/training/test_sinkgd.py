"""SinkGD: the step by its formula, no state, and the optimizer's conventions."""

import copy

import pytest
import torch
from torch import nn

import mtopt
from mtopt.combiners.sinkhorn import sinkhorn_normalized
from mtopt.training import SinkGD


def small_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def test_a_step_is_the_formula_and_leaves_no_state():
    model = small_model()
    optimizer = SinkGD(model.parameters(), lr=0.01, iterations=3, weight_decay=0.1)
    model(torch.ones(3, 4)).square().sum().backward()
    before = [p.detach().clone() for p in model.parameters()]
    grads = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    for p, start, grad in zip(model.parameters(), before, grads, strict=True):
        torch.testing.assert_close(p.detach(), start - 0.01 * (sinkhorn_normalized(grad, 3) + 0.1 * start))
        assert torch.equal(p.grad, grad)
    assert not optimizer.state
    assert copy.deepcopy(optimizer).state_dict() == optimizer.state_dict()


def test_the_scale_of_the_loss_does_not_matter_and_it_trains():
    ends = []
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    targets = inputs[:, :2].sin()
    for scale in (1.0, 2.0**-60):
        model = small_model()
        optimizer = SinkGD(model.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 300)
        for _ in range(300):
            optimizer.zero_grad()
            loss = (model(inputs) - targets).square().mean()
            (loss * scale).backward()
            optimizer.step()
            schedule.step()
        assert float(loss.detach()) < 0.01
        ends.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    torch.testing.assert_close(*ends, rtol=1e-3, atol=1e-4)


def test_bfloat16_closures_and_parameters_without_gradient():
    weight, other = nn.Parameter(torch.ones(3, 3, dtype=torch.bfloat16)), nn.Parameter(torch.ones(2))
    optimizer = SinkGD([weight, other], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss.detach()

    assert float(optimizer.step(closure)) == 9
    assert weight.dtype == torch.bfloat16
    assert weight.tolist() == [[0.5] * 3] * 3
    assert other.tolist() == [1, 1]


def test_gen_finds_its_rate():
    model = small_model()
    optimizer = SinkGD(model.parameters(), lr=1e-6)
    gen = mtopt.GeN(optimizer)
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))

    def loss():
        return (model(inputs) - inputs[:, :2]).square().mean()

    first = float(loss().detach())
    for _ in range(30):
        optimizer.zero_grad()
        loss().backward()
        gen.step(loss)
        optimizer.step()
    assert float(loss().detach()) < 0.1 * first


@pytest.mark.parametrize(
    ("options", "message"),
    [({"lr": -1.0}, "lr must not"), ({"iterations": 0}, "positive int"), ({"weight_decay": -0.1}, "weight_decay must")],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SinkGD([nn.Parameter(torch.ones(2))], **options)


def test_sparse_gradients_are_refused():
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="dense gradients"):
        SinkGD(embedding.parameters()).step()
