"""The toys of PCGrad and MoCo."""

import math

import pytest
import torch

from mtopt.problems import CAGradToy, create_problem
from mtopt.problems._noise import with_gradient_noise


def test_pcgrad_definition():
    problem = create_problem("pcgrad_toy")
    assert problem.starts.tolist() == [[0.5, -3.0]]
    for a, b in ((0.5, -3.0), (2.0, 1.0), (-7.0, 0.3)):
        first = 20 * math.log(max(abs(0.5 * a + math.tanh(b)), 5e-6))
        second = 25 * math.log(max(abs(0.5 * a - math.tanh(b) + 2), 5e-6))
        assert problem(torch.tensor([a, b]).double()).tolist() == pytest.approx([first, second])


def test_both_objectives_of_pcgrad_are_least_in_one_tongue():
    problem = create_problem("pcgrad_toy")
    front = problem.pareto_front(20)
    best = torch.tensor([20.0, 25.0]).double() * math.log(5e-6)
    torch.testing.assert_close(front, best.expand(20, 2))
    drawn = problem.sample_starts(5000, seed=0)
    assert (problem(drawn) > best).all()
    just_before = torch.tensor([-2.0, math.atanh(1 - 6e-6)]).double()
    assert (problem(just_before) > best).all()


def test_moco_is_cagrads_with_the_first_objective_doubled():
    problem = create_problem("moco_toy")
    x = problem.sample_starts(50, seed=0)
    torch.testing.assert_close(problem(x), CAGradToy()(x) * torch.tensor([2.0, 1.0]).double())
    assert problem.starts.tolist() == [[-8.5, 7.5], [-8.5, -5.0], [9.0, 9.0], [0.0, 0.0], [10.0, -8.0]]


def noise_of(problem, x):
    """What sampling adds to the gradients of both objectives at each row of `x` (m, 2): (m, 2, 2)."""
    rows = []
    leaf = x.clone().requires_grad_()
    noisy, exact = problem.sample(leaf), problem(leaf)
    torch.testing.assert_close(noisy, exact, rtol=0, atol=0)
    for k in range(2):
        difference = (noisy - exact)[:, k].sum()
        rows.append(torch.autograd.grad(difference, leaf, retain_graph=True)[0])
    return torch.stack(rows, dim=1)


POINT = torch.tensor([[3.0, -4.0]]).double()


def test_noise_has_the_variance_of_a_batch_and_is_shared_by_the_objectives():
    for size in (1, 25):
        problem = create_problem("moco_toy", batch_size=size, seed=1)
        drawn = noise_of(problem, POINT.repeat(1000, 1))
        torch.testing.assert_close(drawn[:, 0], drawn[:, 1], atol=1e-12, rtol=0)
        # 1000 draws: the deviation is known to 2 %, the mean to 1/sqrt(1000 size), beside that of the data set
        torch.testing.assert_close(drawn[:, 0].std(dim=0), torch.full((2,), size**-0.5).double(), rtol=0.1, atol=0)
        assert (drawn.mean(dim=0).abs() < 4 / math.sqrt(1000 * size) + 4 / math.sqrt(5000)).all()


def test_the_whole_data_set_has_one_gradient():
    problem = create_problem("moco_toy", batch_size=5000)
    first = noise_of(problem, POINT)
    torch.testing.assert_close(first, noise_of(problem, -POINT), atol=1e-12, rtol=0)
    assert 0 < first.abs().max().item() < 5 / math.sqrt(5000)


def test_noise_is_seeded_and_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    untouched = torch.rand(2)
    torch.manual_seed(0)
    problem = create_problem("moco_toy", seed=3)
    runs = [noise_of(problem, POINT) for _ in range(2)]
    assert torch.equal(torch.rand(2), untouched)
    assert not torch.equal(*runs)
    again = create_problem("moco_toy", seed=3)
    assert torch.equal(noise_of(again, POINT), runs[0])
    assert not torch.equal(noise_of(create_problem("moco_toy", seed=4), POINT), runs[0])


def test_every_point_of_a_batch_has_noise_of_its_own():
    problem = create_problem("moco_toy")
    x = POINT.repeat(2, 3, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(problem.sample(x)[..., 0].sum(), x)
    assert len(gradient.reshape(6, 2).unique(dim=0)) == 6
    assert problem.sample(x[:0]).shape == (0, 3, 2)


def test_noise_of_each_objective():
    x = torch.zeros(4, 2, requires_grad=True)
    noise = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    values = with_gradient_noise(torch.zeros(4, 3), x, noise)
    for k in range(3):
        (gradient,) = torch.autograd.grad(values[:, k].sum(), x, retain_graph=True)
        torch.testing.assert_close(gradient, noise[:, k])


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="batch_size must be at most 5000, the size of the data, found 5001"):
        create_problem("moco_toy", batch_size=5001)
    with pytest.raises(ValueError, match="noise must have 2 entries in its last dimension, found"):
        with_gradient_noise(torch.zeros(2), torch.zeros(2), torch.zeros(3))
