"""Rules that weigh by the gradients of the shared representation."""

import pytest
import torch

import mtopt
from mtopt.solvers import min_norm


def network(count=3, seed=0):
    torch.manual_seed(seed)
    trunk = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 4)).double()
    heads = [torch.nn.Linear(4, 2).double() for _ in range(count)]
    return trunk, heads, torch.randn(6, 5, dtype=torch.float64)


def losses_of(heads, features):
    return [(head(features) - k).square().mean() * 10**k for k, head in enumerate(heads)]


def test_weights_are_the_min_norm_point_of_the_representation():
    trunk, heads, x = network()
    features = trunk(x)
    losses = losses_of(heads, features)
    rows = torch.stack([torch.autograd.grad(loss, features, retain_graph=True)[0].flatten() for loss in losses])
    expected, _ = min_norm(rows @ rows.T)
    pairs = list(zip(losses, heads, strict=True))
    own = [torch.autograd.grad(loss, list(head.parameters()), retain_graph=True) for loss, head in pairs]
    weighted = sum(float(w) * loss for w, loss in zip(expected, losses, strict=True))
    through = torch.autograd.grad(weighted, list(trunk.parameters()), retain_graph=True)

    model = torch.nn.ModuleList([trunk, *heads])
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda_ub"), features=features)
    assert list(record.weights.values()) == pytest.approx(expected.tolist(), abs=1e-12)
    assert record.backwards == 1
    assert "representation" in record.plan
    for param, gradient in zip(trunk.parameters(), through, strict=True):
        assert torch.allclose(param.grad, gradient, rtol=1e-10)
    for head, gradients in zip(heads, own, strict=True):
        for param, gradient in zip(head.parameters(), gradients, strict=True):
            assert torch.allclose(param.grad, gradient, rtol=1e-12)
    assert list(record.norms.values()) == pytest.approx(rows.norm(dim=1).tolist())


@pytest.mark.parametrize("rule", ["mgda", "upgrad", "nash_mtl", "cagrad", "ngdiff", "imtl_g"])
def test_any_rule_on_inner_products_may_be_fed_the_representation(rule):
    trunk, heads, x = network()
    features = trunk(x)
    losses = losses_of(heads, features)
    rows = torch.stack([torch.autograd.grad(loss, features, retain_graph=True)[0].flatten() for loss in losses])
    combiner = mtopt.create_combiner(rule)
    wanted = combiner.fresh()(rows)
    through = torch.autograd.grad(features, list(trunk.parameters()), wanted.view_as(features), retain_graph=True)

    model = torch.nn.ModuleList([trunk, *heads])
    record = mtopt.backward(losses, model, combiner, features=features, plan="features")
    assert record.backwards == 1
    for param, gradient in zip(trunk.parameters(), through, strict=True):
        torch.testing.assert_close(param.grad, gradient, rtol=1e-9, atol=1e-12)
    assert torch.allclose(heads[0].bias.grad, torch.autograd.grad(losses_of(heads, trunk(x))[0], heads[0].bias)[0])


def test_the_representation_with_a_linear_trunk_of_orthonormal_rows_gives_the_rules_own_weights():
    """Then ``||J_Z' g|| = ||g||``: the bound is no bound but the thing itself."""
    torch.manual_seed(0)
    shift = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    head = torch.randn(3, 4, dtype=torch.float64)
    found = []
    for options in ({}, {"plan": "features"}):
        features = shift + 1.0
        shift.grad = None
        record = mtopt.backward(
            list(head @ features), [shift], mtopt.create_combiner("upgrad"), features=features, **options
        )
        found.append((record.weights, shift.grad))
    assert found[0][0] == pytest.approx(found[1][0])
    assert torch.allclose(found[0][1], found[1][1])


def test_what_the_plan_cannot_do_is_said():
    trunk, heads, x = network()
    model = torch.nn.ModuleList([trunk, *heads])
    mgda = mtopt.create_combiner("mgda")

    def run(rule=mgda, **options):
        features = trunk(x)
        return mtopt.backward(losses_of(heads, features), model, rule, plan="features", **options)

    with pytest.raises(ValueError, match="give features"):
        run()
    with pytest.raises(ValueError, match="give features"):
        mtopt.backward([lambda: heads[0](trunk(x)).sum()], model, mgda, plan="features")
    features = trunk(x)
    for name in ("graddrop", "moco", "gru"):
        with pytest.raises(ValueError, match="needs those of the parameters"):
            run(mtopt.create_combiner(name), features=features)
    with pytest.raises(ValueError, match="leave store"):
        run(features=features, store=torch.bfloat16)


def test_a_loss_around_the_representation_is_told_and_takes_rows():
    trunk, heads, x = network()
    features = trunk(x)
    losses = losses_of(heads, features)
    losses[0] = losses[0] + trunk[0].weight.square().sum()
    model = torch.nn.ModuleList([trunk, *heads])
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda"), features=features, plan="features")
    assert record.backwards == 3
    assert "reached around" in record.plan


def test_heads_are_weighted_when_asked():
    trunk, heads, x = network(count=2)
    features = trunk(x)
    losses = losses_of(heads, features)
    (plain,) = torch.autograd.grad(losses[1], [heads[1].bias], retain_graph=True)
    model = torch.nn.ModuleList([trunk, *heads])
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda_ub"), features=features, private="weighted")
    assert torch.allclose(heads[1].bias.grad, record.weights["loss_1"] * plain)


def test_without_features_or_around_them_it_is_mgda():
    for tied in (False, True):
        gradients = []
        for rule, use in (("mgda_ub", tied), ("mgda", False)):
            trunk, heads, x = network()
            features = trunk(x)
            losses = losses_of(heads, features)
            if tied:
                losses[0] = losses[0] + trunk[0].weight.square().sum()
            model = torch.nn.ModuleList([trunk, *heads])
            mtopt.backward(losses, model, mtopt.create_combiner(rule), features=features if use else None)
            gradients.append(trunk[0].weight.grad)
        assert torch.allclose(*gradients, rtol=1e-9)


def test_a_module_that_two_heads_share_gets_the_rule_on_its_rows():
    torch.manual_seed(3)
    trunk, middle = torch.nn.Linear(3, 4).double(), torch.nn.Linear(4, 4).double()
    heads = [torch.nn.Linear(4, 1).double() for _ in range(3)]
    features = trunk(torch.randn(8, 3, dtype=torch.float64))
    inner = middle(features)
    losses = [heads[0](inner).square().mean(), (heads[1](inner) - 1).square().mean(), heads[2](features).sum()]
    rows = torch.stack(
        [torch.autograd.grad(loss, middle.weight, retain_graph=True)[0].flatten() for loss in losses[:2]]
    )
    biases = torch.stack([torch.autograd.grad(loss, middle.bias, retain_graph=True)[0] for loss in losses[:2]])
    joint = torch.cat([rows, biases], 1)
    expected, _ = min_norm(joint @ joint.T)
    model = torch.nn.ModuleList([trunk, middle, *heads])
    mtopt.backward(losses, model, mtopt.create_combiner("mgda_ub"), features=features)
    assert torch.allclose(middle.bias.grad, torch.from_numpy(expected) @ biases)


def test_non_finite_gradients_skip_the_step():
    trunk, heads, x = network(count=2)
    features = trunk(x)
    losses = losses_of(heads, features)
    losses[1] = losses[1] * float("inf")
    model = torch.nn.ModuleList([trunk, *heads])
    record = mtopt.backward(losses, model, mtopt.create_combiner("mgda_ub"), features=features)
    assert record.skipped
    assert all(p.grad is None for p in model.parameters())


def test_a_frozen_trunk_leaves_the_heads_to_train():
    trunk, heads, x = network(count=2)
    features = trunk(x)
    losses = losses_of(heads, features)
    params = [p for head in heads for p in head.parameters()]
    record = mtopt.backward(losses, params, mtopt.create_combiner("mgda_ub"), features=features)
    assert not record.skipped
    assert all(p.grad is not None for p in params)
    assert all(p.grad is None for p in trunk.parameters())
