"""Mean ranks and cliques against definitions and scikit-posthocs."""

import math

import numpy as np
import pytest

from mtopt.experiments.statistics import rank
from mtopt.experiments.statistics._aggregate import gain


def test_friedman_against_its_definition():
    ranking = rank([{"a": 3.0, "b": 2.0, "c": 1.0}] * 6)
    assert ranking.mean_ranks == {"a": 1.0, "b": 2.0, "c": 3.0}
    # chi2 = 12 N / (k (k + 1)) * (sum R_j^2 - k (k + 1)^2 / 4) = 12 with 2 degrees of freedom: p = exp(-6)
    assert ranking.p_value == pytest.approx(math.exp(-6))


def test_ties_share_ranks_and_missing_scores_rank_last():
    ranking = rank([{"a": 1.0, "b": 1.0, "c": 0.5}, {"a": 1.0, "b": 2.0}])
    assert ranking.mean_ranks == {"b": 1.25, "a": 1.75, "c": 3.0}


def test_equal_rules_are_not_told_apart():
    ranking = rank([{"a": 1.0, "b": 1.0, "c": 1.0}] * 12)
    assert ranking.p_value == 1.0
    assert ranking.cliques == (("a", "b", "c"),)
    assert str(ranking).startswith("No two of the 3 rules can be told apart by their scores on 12 tasks.")


def test_two_rules_on_few_tasks_are_ranked_and_not_told_apart():
    ranking = rank([{"a": 1.0, "b": 2.0}] * 5)
    assert ranking.p_value is None
    assert ranking.cliques == (("b", "a"),)
    assert "takes at least 6 tasks for 2 rules" in str(ranking)
    assert rank([{"a": 1.0, "b": 2.0}] * 6).cliques == ()


def test_cliques_are_those_of_scikit_posthocs():
    posthocs = pytest.importorskip("scikit_posthocs")
    random = np.random.default_rng(3)
    names = list("abcdef")
    scores = random.uniform(0.3, 0.6, (16, 1)) + np.array([0.0, 0.01, 0.02, 0.1, 0.11, 0.2])
    scores = scores + random.normal(0, 0.02, scores.shape)
    ranking = rank([dict(zip(names, row, strict=True)) for row in scores.tolist()])
    gains = {(i, j): gain(scores[:, i], scores[:, j]) for i in range(6) for j in range(6)}
    p = np.ones((6, 6))
    for i in range(6):
        for j in range(i):
            # the differences themselves, which the pair's own scale makes shares of
            pair = np.stack([gains[i, j], np.zeros(16)])
            p[i, j] = p[j, i] = posthocs.posthoc_wilcoxon(pair.tolist()).iloc[0, 1]
    from statsmodels.stats.multitest import multipletests

    below = np.tril_indices(6, -1)
    p[below] = multipletests(p[below], method="holm")[1]
    apart = np.tril(p < 0.05, -1)
    order = list(ranking.mean_ranks)
    assert 1 < len(ranking.cliques) < 6
    told = {frozenset((names[i], names[j])) for i in range(6) for j in range(6) if apart[i, j]}
    for clique in ranking.cliques:
        assert not [pair for pair in told if pair <= set(clique)]
        start, end = order.index(clique[0]), order.index(clique[-1]) + 1
        assert list(clique) == order[start:end]
        for longer in (order[start - 1 : end] if start else [], order[start : end + 1] if end < 6 else []):
            assert not longer or [pair for pair in told if pair <= set(longer)]
