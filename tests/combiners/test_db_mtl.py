"""DB-MTL against the paper's recursion in plain numpy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mtopt
from mtopt.combiners.db_mtl import DBMTL
from mtopt.linalg import Gradients


def plain(jacobians, losses, beta=0.9, decay=0.0):
    average = np.zeros_like(jacobians[0])
    for step, (jacobian, loss) in enumerate(zip(jacobians, losses, strict=True), start=1):
        share = beta / step**decay
        average = share * average + (1 - share) * jacobian / loss[:, None]
    norms = np.linalg.norm(average, axis=1)
    return norms.max() * (average / norms[:, None]).sum(0)


def draw(seed, steps=4, count=3, columns=8):
    random = np.random.default_rng(seed)
    return random.normal(size=(steps, count, columns)), random.uniform(0.1, 5.0, size=(steps, count))


@given(seed=st.integers(0, 10_000), beta=st.sampled_from([0.0, 0.5, 0.9]), decay=st.sampled_from([0.0, 0.5]))
@settings(max_examples=30, deadline=None)
def test_follows_the_recursion(seed, beta, decay):
    jacobians, losses = draw(seed)
    rule = DBMTL(beta=beta, decay=decay)
    for jacobian, loss in zip(jacobians, losses, strict=True):
        direction = rule(torch.tensor(jacobian), torch.tensor(loss))
    np.testing.assert_allclose(direction.numpy(), plain(jacobians, losses, beta, decay), rtol=1e-10)


def test_the_defaults_are_the_authors():
    jacobians, losses = draw(0)
    rule = DBMTL()
    for jacobian, loss in zip(jacobians, losses, strict=True):
        direction = rule(torch.tensor(jacobian), torch.tensor(loss))
    np.testing.assert_allclose(direction.numpy(), plain(jacobians, losses), rtol=1e-10)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_every_objective_contributes_the_same_length(seed):
    # orthogonal supports keep the contributions apart
    sizes = 10.0 ** np.random.default_rng(seed).uniform(-6, 6, size=4)
    jacobian = torch.block_diag(*[torch.randn(1, 5, dtype=torch.float64) * size for size in sizes])
    rule = DBMTL(beta=0.0)
    lengths = rule(jacobian, torch.ones(4)).reshape(4, 5).norm(dim=1)
    torch.testing.assert_close(lengths, jacobian.norm(dim=1).max().expand(4))


@pytest.mark.parametrize("factor", [1e-20, 1e-3, 1e20])
def test_a_factor_on_one_loss_changes_nothing(factor):
    jacobians, losses = draw(1)
    scale = torch.tensor([1.0, factor, 1.0], dtype=torch.float64)
    first, second = DBMTL(), DBMTL()
    for jacobian, loss in zip(map(torch.tensor, jacobians), map(torch.tensor, losses), strict=True):
        torch.testing.assert_close(first(jacobian, loss), second(jacobian * scale[:, None], loss * scale))


@pytest.mark.parametrize("factor", [1e-20, 1e15])
def test_the_length_goes_with_the_gradients_in_float32(factor):
    jacobian = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    expected = DBMTL(transform=None)(jacobian)
    torch.testing.assert_close(DBMTL(transform=None)(jacobian * factor) / factor, expected)


def test_an_absent_loss_keeps_its_average():
    jacobians, losses = draw(2, steps=2)
    rule = DBMTL(beta=0.5)
    rule(torch.tensor(jacobians[0]), torch.tensor(losses[0]))
    average = 0.5 * jacobians[0] / losses[0][:, None]
    present = [0, 2]
    gradients = Gradients([[torch.tensor(jacobians[1][k])] for k in present], objectives=present, total=3)
    outcome = rule.combine(gradients, torch.tensor(losses[1][present]))
    average[present] = 0.5 * average[present] + 0.5 * jacobians[1][present] / losses[1][present][:, None]
    norms = np.linalg.norm(average, axis=1)
    np.testing.assert_allclose(outcome.direction.numpy(), norms.max() * (average / norms[:, None]).sum(0), rtol=1e-10)
    np.testing.assert_allclose(outcome.weights.numpy(), (norms.max() / norms)[present], rtol=1e-10)


def test_zero_rows_weigh_nothing():
    jacobian = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    torch.testing.assert_close(DBMTL(beta=0.0)(jacobian, torch.ones(2)), jacobian[0])
    assert DBMTL()(torch.zeros(2, 3), torch.ones(2)).tolist() == [0.0] * 3


def test_losses_must_be_positive_and_there():
    with pytest.raises(ValueError, match=r"objectives \[0, 1\] are \[1.0, -2.0\].*transform=None"):
        DBMTL()(torch.ones(2, 3), torch.tensor([1.0, -2.0]))
    with pytest.raises(ValueError, match="reads the loss values"):
        DBMTL()(torch.ones(2, 3))


def test_an_error_leaves_the_state_as_it_was():
    rule = DBMTL()
    rule(torch.ones(2, 3), torch.ones(2))
    before = rule.state_dict()["state"]
    with pytest.raises(ValueError, match="jacobian has 4 columns, but this DBMTL tracks gradients of 3"):
        rule(torch.ones(2, 4), torch.ones(2))
    after = rule.state_dict()["state"]
    assert before["_step"] == after["_step"]
    assert torch.equal(before["_tracked"], after["_tracked"])


@pytest.mark.parametrize(
    ("bad", "message"), [({"beta": 1.0}, "beta"), ({"decay": -1.0}, "decay"), ({"transform": "sqrt"}, "transform")]
)
def test_bad_hyperparameters_are_refused(bad, message):
    with pytest.raises(ValueError, match=f"{message} must be"):
        DBMTL(**bad)


# -- heads ---------------------------------------------------------------------------------------------------------


class TwoTasks(torch.nn.Module):
    """A trunk of one matrix and a head for each of two regressions."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.trunk = torch.nn.Parameter(torch.randn(3, 4, generator=generator, dtype=torch.float64))
        self.heads = torch.nn.ParameterList(torch.randn(3, generator=generator, dtype=torch.float64) for _ in range(2))
        self.inputs = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        self.targets = torch.randn(2, 8, generator=generator, dtype=torch.float64)

    def losses(self):
        features = (self.inputs @ self.trunk.T).tanh()
        return [
            (features @ head - target).square().mean() + 0.1
            for head, target in zip(self.heads, self.targets, strict=True)
        ]

    def moved(self, step, steps=30):
        """The parameters after plain gradient descent with what ``step`` writes."""
        for _ in range(steps):
            for param in self.parameters():
                param.grad = None
            step()
            with torch.no_grad():
                for param in self.parameters():
                    param -= 0.02 * param.grad
        return [param.detach().clone() for param in self.parameters()]


def by_hand(heads, beta=0.9):
    """The authors' loop: a backward of each log loss, whose heads keep what it gives them, and the trunk's average."""
    model = TwoTasks()
    averages = [torch.zeros_like(model.trunk) for _ in range(2)]

    def step():
        for k, loss in enumerate(model.losses()):
            target = loss.log() if heads == "log" else loss
            (model.heads[k].grad,) = torch.autograd.grad(target, model.heads[k], retain_graph=True)
            (row,) = torch.autograd.grad(loss.log(), model.trunk, retain_graph=True)
            averages[k] = beta * averages[k] + (1.0 - beta) * row
        norms = [average.norm() for average in averages]
        model.trunk.grad = sum(max(norms) / norm * y for norm, y in zip(norms, averages, strict=True))

    return model.moved(step)


def accumulated(model, rule):
    accumulator = mtopt.JacobianAccumulator(model, 2)
    for k, loss in enumerate(model.losses()):
        accumulator.add(k, loss, retain_graph=k == 0)
    accumulator.combine(rule)


WAYS = {
    "backward": lambda model, rule: mtopt.backward(model.losses(), model, rule),
    "batched": lambda model, rule: mtopt.backward(model.losses(), model, rule, plan="batched"),
    "callables": lambda model, rule: mtopt.backward([lambda k=k: model.losses()[k] for k in range(2)], model, rule),
    "accumulated": accumulated,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("heads", ["log", "loss"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["", "wrapped"])
def test_heads_step_along_the_gradient_that_heads_names(way, heads, wrapped):
    model = TwoTasks()
    rule = DBMTL(heads=heads)
    if wrapped:
        rule = mtopt.Clipped(rule, math.inf)
    found = model.moved(lambda: WAYS[way](model, rule))
    for param, expected in zip(found, by_hand(heads), strict=True):
        torch.testing.assert_close(param, expected, rtol=1e-10, atol=1e-12)


def test_the_default_is_the_authors_and_differs_from_the_other_in_heads():
    model = TwoTasks()
    rule = mtopt.create_combiner("db_mtl")
    default = model.moved(lambda: mtopt.backward(model.losses(), model, rule))
    torch.testing.assert_close(default, by_hand("log"), rtol=1e-10, atol=1e-12)
    assert any(
        float((a - b).norm()) > 0.01 * float(b.norm()) for a, b in zip(default[1:], by_hand("loss")[1:], strict=True)
    )


def test_heads_of_steps_with_kept_weights_are_those_of_every_step():
    first, second = TwoTasks(), TwoTasks()
    rule = mtopt.Every(DBMTL(), 2)
    mtopt.backward(first.losses(), first, rule)
    for param in first.parameters():
        param.grad = None
    mtopt.backward(first.losses(), first, rule)  # with the weights of the first
    mtopt.backward(second.losses(), second, DBMTL())
    for one, other in zip(first.heads, second.heads, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_without_the_logarithm_heads_step_along_the_loss():
    model = TwoTasks()
    mtopt.backward(model.losses(), model, DBMTL(transform=None))
    for head, loss in zip(model.heads, model.losses(), strict=True):
        torch.testing.assert_close(head.grad, torch.autograd.grad(loss, head)[0])


def test_heads_in_a_scaled_step_and_of_an_objective_with_a_name():
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    model = TwoTasks()
    losses = dict(zip("ab", model.losses(), strict=True))
    mtopt.backward(losses, model, DBMTL(), scaler=scaler)
    for head, loss in zip(model.heads, model.losses(), strict=True):
        torch.testing.assert_close(head.grad, 8.0 * torch.autograd.grad(loss.log(), head)[0])


def test_other_heads_are_named():
    with pytest.raises(ValueError, match="heads must be 'log' or 'loss', found 'raw'"):
        DBMTL(heads="raw")
