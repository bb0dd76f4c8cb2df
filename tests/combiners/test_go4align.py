"""GO4Align against the formula in plain Python, and its groups against every partition and scikit-learn's k-means."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from mtopt.combiners import GO4Align
from mtopt.combiners.go4align import centres


def best_by_all_partitions(numbers: list[float], groups: int) -> float:
    """The least sum of squared distances over all assignments of tasks to groups."""
    best = math.inf
    for labels in itertools.product(range(groups), repeat=len(numbers)):
        parts = [[n for n, label in zip(numbers, labels, strict=True) if label == g] for g in range(groups)]
        best = min(best, sum((n - sum(p) / len(p)) ** 2 for p in parts for n in p))
    return best


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_the_groups_are_the_best_of_all(seed: int, groups: int) -> None:
    numbers = np.random.default_rng(seed).exponential(size=6)
    found = centres(numbers, groups)
    cost = float(np.square(numbers - found).sum())
    assert cost == pytest.approx(best_by_all_partitions(numbers.tolist(), groups), rel=1e-12)
    assert len(set(found.tolist())) == groups
    assert found.sum() == pytest.approx(numbers.sum())


def test_many_tasks_are_grouped_as_by_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    numbers = np.concatenate([np.random.default_rng(k).normal(k, 0.05, size=12) + 1.0 for k in range(3)])
    fitted = cluster.KMeans(3, n_init=20, random_state=0).fit(numbers[:, None])
    np.testing.assert_allclose(centres(numbers, 3), fitted.cluster_centers_[fitted.labels_, 0], rtol=1e-12)


def test_as_many_groups_as_tasks_leave_the_weights_as_they_are() -> None:
    numbers = np.array([3.0, 1.0, 2.0])
    np.testing.assert_allclose(centres(numbers, 3), numbers, rtol=1e-15)
    np.testing.assert_allclose(centres(numbers, 7), numbers, rtol=1e-15)


def test_three_steps_follow_the_formula() -> None:
    rule, p, eta = GO4Align(groups=3, step_size=0.1), [1 / 3] * 3, 0.1
    for losses in ([1.0, 2.0, 5.0], [0.5, 2.0, 4.0], [0.1, 1.5, 7.0]):
        p = [x * math.exp(-eta * loss) for x, loss in zip(p, losses, strict=True)]
        p = [x / sum(p) for x in p]
        expected = [x * sum(losses) / loss for x, loss in zip(p, losses, strict=True)]
        assert rule.weights(torch.tensor(losses, dtype=torch.float64)).tolist() == pytest.approx(expected, rel=1e-12)


def test_equal_losses_have_the_weight_one() -> None:
    assert GO4Align().weights(torch.full((4,), 3.0)).tolist() == pytest.approx([1.0] * 4)


def test_an_absent_loss_keeps_its_indicator() -> None:
    rule = GO4Align(groups=3, step_size=0.5)
    rule.weights(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    before = rule._logits.exp()
    rule.weigh(torch.tensor([4.0, 1.0], dtype=torch.float64), [0, 2], 3)
    after = rule._logits.exp()
    assert float(after[1]) == float(before[1])
    assert float(after.sum()) == pytest.approx(3.0)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="needs every loss > 0"):
        GO4Align().weights(torch.tensor([1.0, -1.0]))
    with pytest.raises(ValueError, match="groups must be a whole number of at least 1"):
        GO4Align(groups=0)
