"""Conflicts and weights over steps: from a real history and from arrays."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import mtopt
from mtopt.plotting import plot_conflicts, plot_weights
from mtopt.plotting.recorded import middles, quartiles

RNG = np.random.default_rng(0)
WEIGHTS = RNG.uniform(0.1, 1, (40, 3))
ROWS = RNG.normal(size=(40, 3, 5))
UNIT = ROWS / np.linalg.norm(ROWS, axis=2, keepdims=True)
COSINES = UNIT @ UNIT.transpose(0, 2, 1)


class Parabolas(mtopt.MultiLossTrainer):
    def losses(self, batch):
        (x,) = self.model.parameters()
        far = (x - 1).square().sum()
        return {"near": (x + 1).square().sum(), "far": far * float("nan") if self.step == 3 else far}


@pytest.fixture(scope="module")
def history():
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.tensor([2.0, 0.5]))])
    trainer = Parabolas(model, torch.optim.SGD(model.parameters(), lr=0.05), mtopt.create_combiner("mgda"))
    trainer.fit(steps=12)
    return trainer.history


def line(ax, label):
    (found,) = [artist for artist in ax.lines if artist.get_label() == label]
    return found.get_xydata()


def legend_text(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_history_is_drawn_as_recorded(history):
    ax = plot_conflicts(history)
    assert np.array_equal(line(ax, "far, near")[:, 0], history.steps)
    assert np.array_equal(line(ax, "far, near")[:, 1], history.cosines["far", "near"], equal_nan=True)
    finite = history.cosines["far", "near"][np.isfinite(history.cosines["far", "near"])]
    assert legend_text(ax) == [
        f"far, near\n  in conflict {100 * np.mean(finite < 0):.0f} % of steps",
        "skipped step (1)",
    ]
    assert line(ax, "skipped")[:, 0] == history.steps[history["skipped"] > 0]
    counted = plot_conflicts(history, show="count")
    assert np.array_equal(line(counted, "pairs in conflict")[:, 1], history.conflicts, equal_nan=True)
    weighted = plot_weights(history)
    for name in ("near", "far"):
        assert np.array_equal(line(weighted, name)[:, 1], history.weights[name], equal_nan=True)


def test_arrays_give_every_pair_once():
    ax = plot_conflicts(COSINES, names=["a", "b", "c"], steps=np.arange(40) * 10, window=1)
    assert np.allclose(line(ax, "a, c"), np.c_[np.arange(40) * 10, COSINES[:, 0, 2]])
    assert {artist.get_label() for artist in ax.lines} >= {"a, b", "a, c", "b, c"}
    mapped = plot_conflicts({("a", "b"): COSINES[:, 0, 1]}, window=1)
    assert np.array_equal(line(mapped, "a, b")[:, 1], line(ax, "a, b")[:, 1])
    counted = plot_conflicts(COSINES, show="count", window=1)
    upper = COSINES[:, *np.triu_indices(3, 1)]
    assert np.array_equal(line(counted, "pairs in conflict")[:, 1], (upper < 0).sum(axis=1))


def test_windows_are_medians_with_quartiles():
    ax = plot_weights(WEIGHTS, window=8)
    expected = np.median(WEIGHTS[:, 1].reshape(5, 8), axis=1)
    assert np.allclose(line(ax, "loss 2"), np.c_[np.arange(40).reshape(5, 8).mean(axis=1) + 1, expected])
    assert "median of 8 steps" in ax.get_legend().get_title().get_text()
    assert len(ax.collections) == 3


def test_a_short_last_window_and_nans_count_what_there_is():
    values = np.array([1.0, 2.0, 3.0, np.nan, np.inf, np.nan, 7.0])
    assert np.array_equal(quartiles(values, 3)[1], [2.0, np.nan, 7.0], equal_nan=True)
    assert np.array_equal(middles(np.arange(7.0), 3), [1.0, 4.0, 6.0])


def test_long_trainings_get_at_most_a_hundred_windows():
    ax = plot_weights({"a": RNG.uniform(size=12345)})
    assert len(line(ax, "a")) <= 100


def test_stacked_weights_are_shares():
    ax = plot_weights(WEIGHTS, stacked=True, window=1, names=["a", "b", "c"])
    shares = np.cumsum(WEIGHTS / WEIGHTS.sum(axis=1, keepdims=True), axis=1)
    for k, name in enumerate("abc"):
        assert np.allclose(line(ax, f"_top of {name}")[:, 1], shares[:, k])
    assert legend_text(ax) == ["c", "b", "a"]


def test_given_axes_are_used_and_weights_may_be_logarithmic():
    _, axes = plt.subplots(1, 2)
    assert plot_weights(WEIGHTS, log=True, ax=axes[0], legend=None, title="here") is axes[0]
    assert axes[0].get_yscale() == "log"
    assert plot_conflicts(COSINES, skipped=np.arange(40) == 4, ax=axes[1], legend="inside") is axes[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot_conflicts(np.zeros((4, 3, 2))), r"cosines must be a history.*\(T, K, K\); found \(4, 3, 2\)"),
        (lambda: plot_conflicts(np.full((4, 2, 2), np.nan)), "cosines must have a finite value"),
        (lambda: plot_conflicts({"a, b": np.array([3.0])}), "between -1 and 1; found 3"),
        (lambda: plot_conflicts({}), "cosines must hold at least one column"),
        (lambda: plot_conflicts(COSINES, show="norms"), "show must be"),
        (lambda: plot_conflicts(COSINES, window=0), "window must be a whole number"),
        (lambda: plot_weights(WEIGHTS, steps=np.zeros(40)), "steps must be 40 finite numbers that increase"),
        (lambda: plot_weights(WEIGHTS, skipped=[True]), r"skipped must have shape \(40,\)"),
        (lambda: plot_weights(WEIGHTS, names=["a"]), "names must hold 3"),
        (lambda: plot_weights({"a": np.zeros(3), "b": np.zeros(4)}), r"weights must hold columns of one shape"),
        (lambda: plot_weights(-WEIGHTS, stacked=True), "stacked needs weights that are not negative"),
        (lambda: plot_weights(-WEIGHTS, log=True), "log=True needs positive weights"),
        (lambda: plot_weights(WEIGHTS, stacked=True, log=True), "pass log=False"),
        (lambda: plot_weights(np.full((4, 2), np.nan)), "weights must have a finite value"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    assert not plt.get_fignums()
