"""The table of promises: what it measures of directions that keep them, and of ones that do not."""

import numpy as np
import pytest
import torch

import mtopt
from benchmarks.precision import PROMISES, falls_short, leaves_ball, main, measure, rises
from mtopt.combiners import GramianCombiner

ROWS = np.array([[3.0, 0.0], [0.0, 2.0]], dtype=np.longdouble)
NORMS = np.array([3.0, 2.0], dtype=np.longdouble)


def test_violations_of_known_directions():
    assert rises(ROWS, NORMS, np.array([1.0, -1.0])) == pytest.approx(0.5**0.5)
    assert rises(ROWS, NORMS, np.array([1.0, 1.0])) < 0.0
    # the shortest convex combination is (12, 18) / 13, with g_k . d = d . d = 36 / 13
    assert falls_short(ROWS, NORMS, np.array([12.0, 18.0]) / 13.0) == pytest.approx(0.0, abs=1e-15)
    assert falls_short(ROWS, NORMS, np.array([0.0, 2.0])) == pytest.approx(2.0 / 3.0)
    mean = ROWS.mean(axis=0)
    assert leaves_ball(ROWS, NORMS, mean * 1.4) == pytest.approx(0.0, abs=1e-12)
    assert leaves_ball(ROWS, NORMS, mean * 1.8) == pytest.approx(1.0)


def test_a_rule_that_breaks_its_promise_is_seen(monkeypatch):
    class Ascent(GramianCombiner):
        def weights(self, gramian, losses=None):
            return torch.full((len(gramian),), -1.0, dtype=torch.float64)

    monkeypatch.setattr(mtopt, "create_combiner", lambda name: Ascent())
    assert measure("upgrad", torch.float64, 2) > 0.5


def test_prints_a_row_for_each_rule(capsys):
    main(["--draws", "1", "--rules", "upgrad", "cagrad"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| `upgrad`", "| `cagrad`"]
    assert set(PROMISES) <= set(mtopt.list_combiners())
