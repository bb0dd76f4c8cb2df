"""State kept for each objective, and MoCo, which lives on it."""

import copy
import pickle

import numpy as np
import pytest
import torch

import mtopt
from mtopt.combiners._tracked import grown_rows, grown_weights, joined
from mtopt.combiners.moco import MoCo
from mtopt.linalg import Gradients
from mtopt.solvers import project_simplex


def test_objectives_join_in_order_of_appearance():
    assert joined([], (2, 0)) == ([2, 0], [0, 1])
    assert joined([2, 0], (0, 1, 2)) == ([2, 0, 1], [1, 2, 0])


def test_rows_grow_by_zeros_and_never_below_float32():
    rows = grown_rows(None, 1, torch.ones(1, 3, dtype=torch.bfloat16), "Rule")
    assert rows.dtype == torch.float32
    rows += 1.0
    assert grown_rows(rows, 2, torch.ones(1, 3), "Rule").tolist() == [[1.0] * 3, [0.0] * 3]
    with pytest.raises(ValueError, match="jacobian has 4 columns, but this Rule tracks gradients of 3"):
        grown_rows(rows, 1, torch.ones(1, 4), "Rule")


def test_weights_grow_by_fair_shares():
    weights = torch.tensor([0.75, 0.25], dtype=torch.float64)
    assert grown_weights(weights, 2) is weights
    torch.testing.assert_close(grown_weights(weights, 4), torch.tensor([0.375, 0.125, 0.25, 0.25], dtype=torch.float64))
    assert grown_weights(weights[:0], 2).tolist() == [0.5, 0.5]


def test_moco_with_losses_that_come_and_go():
    random = np.random.default_rng(0)
    present = [(0, 2), (0, 1, 2), (1,), (0, 1, 2)]
    rule, tracked, weights, members = MoCo(gamma=0.5), {}, {}, []
    for step, objectives in enumerate(present, start=1):
        jacobian = random.normal(size=(len(objectives), 6))
        new = [k for k in objectives if k not in members]
        count = len(members) + len(new)
        weights = {k: w * len(members) / count for k, w in weights.items()} | dict.fromkeys(new, 1 / count)
        members += new
        beta = gamma = 0.5 / step**0.5
        for k, row in zip(objectives, jacobian, strict=True):
            old = tracked.get(k, np.zeros(6))
            tracked[k] = old - beta * (old - row)
        matrix, point = np.array([tracked[k] for k in members]), np.array([weights[k] for k in members])
        point = project_simplex(point - gamma * matrix @ (matrix.T @ point))
        weights = dict(zip(members, point, strict=True))
        gradients = Gradients([[torch.tensor(row)] for row in jacobian], objectives=objectives, total=3)
        outcome = rule.combine(gradients, None)
        np.testing.assert_allclose(outcome.direction.numpy(), matrix.T @ point, rtol=1e-10)
        np.testing.assert_allclose(outcome.weights.numpy(), [weights[k] for k in objectives], rtol=1e-10)


def test_a_copy_of_a_rule_knows_no_parameters() -> None:
    """They are noted for checkpoints of shards, and a rule goes to other processes, too."""
    rule, param = mtopt.create_combiner("moco"), torch.nn.Parameter(torch.ones(3))
    mtopt.backward([param.sum(), param.square().sum()], [param], rule)
    assert [reference() for reference in rule.owners.coordinates] == [param]
    for other in (copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))):
        assert not other.owners.coordinates
        assert torch.equal(other.state_dict()["state"]["_tracked"], rule.state_dict()["state"]["_tracked"])
