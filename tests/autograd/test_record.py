"""What a step reports, against direct computation, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import mtopt
from mtopt import StepRecord
from tests.autograd.helpers import FIVE, GRADIENT_RULES, MultiHead, Reference, close, flat_gradient


@pytest.mark.parametrize("name", GRADIENT_RULES)
@pytest.mark.parametrize("how", ["tensors", "features", "callables"])
def test_norms_cosines_and_conflicts_are_those_of_the_shared_gradients(name: str, how: str) -> None:
    model = MultiHead(4)
    params = list(model.parameters())
    features = model.features()
    losses = {f"task {k}": model.loss(k, features) for k in range(4)}
    if how == "features":
        record = mtopt.backward(losses, params, mtopt.create_combiner(name), features=features, plan="loop")
    elif how == "callables":
        calls = {key: lambda k=k: model.losses()[k] for k, key in enumerate(losses)}
        record = mtopt.backward(calls, params, mtopt.create_combiner(name), plan="loop")
    else:
        record = mtopt.backward(losses, params, mtopt.create_combiner(name), plan="loop")
    rows = Reference.of(model.losses, params).jacobian[:, : model.trunk_size]
    units = rows / rows.norm(dim=1, keepdim=True)
    cosines = (units @ units.T).numpy()
    assert record.norms == pytest.approx(dict(zip(losses, rows.norm(dim=1).tolist(), strict=True)))
    assert record.cosines is not None
    np.testing.assert_allclose(record.cosines, cosines, atol=1e-12)
    conflicts = sum(bool(rows[i] @ rows[j] < 0) for i in range(4) for j in range(i))
    assert 0 < conflicts < 6, "the model is to have both kinds of pairs"
    assert record.conflicts == conflicts
    assert record.losses == pytest.approx({key: float(loss.detach()) for key, loss in losses.items()})


@pytest.mark.parametrize("name", ["linear", "mgda", "pcgrad", "ngdiff"])
def test_the_weights_make_the_direction(name: str) -> None:
    model = MultiHead(3)
    params = list(model.trunk.parameters())
    record = mtopt.backward(model.losses(), params, mtopt.create_combiner(name))
    assert record.weights is not None
    weights = torch.tensor(list(record.weights.values()), dtype=torch.float64)
    close(flat_gradient(params), weights @ Reference.of(model.losses, params).jacobian)


def test_the_certificate_is_the_solvers() -> None:
    model = MultiHead(3)
    record = mtopt.backward(model.losses(), model, mtopt.create_combiner("mgda"))
    assert record.certificate is not None
    assert record.certificate.residual <= 1e-10
    assert mtopt.backward(model.losses(), model, mtopt.create_combiner("pcgrad")).certificate is None


def test_a_loss_rule_reports_no_geometry() -> None:
    model = MultiHead(3)
    record = mtopt.backward(model.losses(), model, mtopt.create_combiner("linear"))
    assert (record.norms, record.cosines, record.conflicts) == (None, None, None)
    assert record.weights == pytest.approx(dict.fromkeys(record.losses, 1 / 3))


def test_zero_gradients_have_cosine_zero_and_do_not_conflict() -> None:
    point = nn.Parameter(torch.ones(2))
    losses = [(0.0 * point).sum(), point.sum(), -2 * point.sum()]
    record = mtopt.backward(losses, [point], mtopt.create_combiner("pcgrad"))
    assert record.cosines is not None
    np.testing.assert_allclose(record.cosines, [[0, 0, 0], [0, 1, -1], [0, -1, 1]], atol=1e-12)
    assert record.conflicts == 1


def test_conflicts_are_counted_in_pairs() -> None:
    cosines = np.array([[1.0, -0.1, 0.5], [-0.1, 1.0, -1.0], [0.5, -1.0, 1.0]])
    assert StepRecord(losses={}, cosines=cosines).conflicts == 2
    assert StepRecord(losses={}).conflicts is None


# -- cost ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIVE)
@pytest.mark.parametrize("tasks", [2, 5])
def test_a_loss_rule_runs_one_backward_and_a_gradient_rule_k(name: str, tasks: int) -> None:
    model = MultiHead(tasks)
    passes = []
    features = model.features()
    features.register_hook(passes.append)
    losses = [model.loss(k, features) for k in range(tasks)]
    record = mtopt.backward(losses, model, mtopt.create_combiner(name))
    expected = 1 if name == "linear" else tasks
    assert len(passes) == expected
    assert record.backwards == expected


def test_an_absent_loss_costs_nothing() -> None:
    model = MultiHead(3)
    passes = []
    features = model.features()
    features.register_hook(passes.append)
    record = mtopt.backward(
        [model.loss(0, features), None, model.loss(2, features)], model, mtopt.create_combiner("mgda")
    )
    assert len(passes) == record.backwards == 2


def test_a_nan_loss_of_a_loss_rule_is_not_differentiated() -> None:
    model = MultiHead(2)
    passes = []
    features = model.features()
    features.register_hook(passes.append)
    losses = [model.loss(0, features), torch.nan * model.loss(1, features)]
    record = mtopt.backward(losses, model, mtopt.create_combiner("linear"))
    assert len(passes) == record.backwards == 0
