"""The figure of the training losses: one panel per loss, four in a row."""

import matplotlib as mpl
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

from mtopt.experiments._results import Cell
from mtopt.experiments.presentation._figures import _curves
from mtopt.plotting import rule_styles


@pytest.mark.parametrize(("losses", "rows"), [(1, 1), (4, 1), (5, 2), (11, 3)])
def test_many_losses_go_over_several_rows(losses, rows):
    curve = {"step": [1, 2, 3], **{f"loss {k}": [3.0, 2.0, 1.0] for k in range(losses)}}
    cell = Cell("suite", {"title": "a task"}, "mgda", ({"result": {"curves": [curve]}},), (), None, 1, (), {})
    figure = _curves([cell], rule_styles(["mgda"]))
    figure.canvas.draw()
    assert [ax.get_ylabel() for ax in figure.axes] == [f"loss {k} (training)" for k in range(losses)]
    assert len({round(ax.get_position().y0, 2) for ax in figure.axes}) == rows
    width, height = figure.get_size_inches()
    assert width < 16
    assert height == 3.0 * rows
    plt.close(figure)
