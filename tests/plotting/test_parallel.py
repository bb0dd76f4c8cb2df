"""Parallel axes: every value at its share of its objective's range."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mtopt.plotting import plot_parallel

RNG = np.random.default_rng(0)
LOW, HIGH = np.array([0.0, -5.0, 1e-3, 100.0, 2.0]), np.array([1.0, 5.0, 2e-3, 900.0, 2.5])
SERIES = {name: LOW + RNG.uniform(0, 1, (6, 5)) * (HIGH - LOW) for name in ("linear", "mgda")}


def drawn(ax, name):
    return np.array([line.get_ydata() for line in ax.lines if line.get_label() in (name, f"_{name}")])


def test_lines_are_shares_of_the_given_ranges_whose_ends_are_printed():
    ax = plot_parallel(SERIES, limits=list(zip(LOW, HIGH, strict=True)), labels=["a", "b", "c", "d", "e"], title="five")
    for name, points in SERIES.items():
        assert np.allclose(drawn(ax, name), (points - LOW) / (HIGH - LOW), atol=1e-12)
    ticks = [label.get_text() for label in ax.get_xticklabels()]
    assert ticks == ["0\na", "-5\nb", "0.001\nc", "100\nd", "2\ne"]
    assert [text.get_text() for text in ax.texts] == ["1", "5", "0.002", "900", "2.5"]
    assert "lower is better" in ax.get_ylabel()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(SERIES)


def test_the_range_is_that_of_the_data():
    ax = plot_parallel({"a": torch.tensor(SERIES["linear"]), "b": list(SERIES["mgda"][None])}, limits="all")
    every = np.concatenate([drawn(ax, "a"), drawn(ax, "b")])
    assert np.allclose(every.min(axis=0), 0)
    assert np.allclose(every.max(axis=0), 1)


def test_the_true_front_is_a_band_of_its_ranges():
    front = np.stack([LOW, HIGH])
    ax = plot_parallel(SERIES, true_front=front)
    corners = ax.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == 0
    assert corners[:, 1].max() == 1
    assert ax.get_legend().get_texts()[0].get_text() == "range of the true front"


def test_a_wild_value_is_told_and_squashes_nothing():
    wild = np.concatenate([SERIES["mgda"], [[1e6, 0, 1e-3, 500, 2.2]]])
    ax = plot_parallel({"linear": SERIES["linear"], "mgda": wild})
    assert np.ptp(drawn(ax, "linear")[:, 0]) > 0.3
    assert "mgda\n  1 of 7 off scale: f1 to 1e+06" in ax.get_legend().get_texts()[1].get_text()


def test_an_objective_that_never_changes_is_drawn():
    ax = plot_parallel({"a": [[1.0, 2.0, 3.0], [2.0, 2.0, 1.0]]}, ax=plt.figure().add_subplot())
    assert np.isfinite(drawn(ax, "a")).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"series": {"a": np.zeros((3, 1))}}, r"series\['a'\] must have shape"),
        ({"series": {"a": np.zeros((3, 4)), "b": np.zeros((3, 5))}}, "same number of columns"),
        ({"labels": ["a"]}, "labels must hold 5"),
        ({"true_front": np.zeros((3, 4))}, "true_front must have shape"),
        ({"limits": ((0, 1),)}, "limits must hold 5 pairs"),
        ({"legend": "left"}, "legend must be one of"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot_parallel(**{"series": SERIES, **arguments})
    assert not plt.get_fignums()
