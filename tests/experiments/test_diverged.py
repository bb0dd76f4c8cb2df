"""Trainings that end in NaN or infinity: said to have failed, and no score of 0.000 ± 0.000."""

import math
from io import StringIO

import pytest

from mtopt.experiments import compare
from mtopt.experiments.presentation._table import score_text
from tests.experiments import tiny

QUIET = {"progress": False, "jobs": 1, "trials": 1, "combiners": ["mgda"]}


class Ends(tiny.ParabolasTask):
    """MGDA's trainings end in ``value`` on the given seeds."""

    def __init__(self, value, seeds):
        super().__init__("ends")
        self.value, self.seeds = value, seeds

    def trainer(self, combiner, *, seed, **settings):
        trainer = super().trainer(combiner, seed=seed, **settings)
        trainer.ends = combiner.name == "mgda" and seed in self.seeds
        return trainer

    def values(self, trainer, split):
        values = super().values(trainer, split)
        return {**values, "near": self.value} if trainer.ends else values


def cell_of(comparison, rule="mgda"):
    (cell,) = (cell for cell in comparison.cells if cell.combiner == rule)
    return cell


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_rule_that_diverges_on_every_seed_has_failed(value, tmp_path):
    made = compare(Ends(value, (0, 1)), out=tmp_path, seeds=2, **QUIET)
    cell = cell_of(made)
    assert (cell.score(), score_text(cell), cell.diverged, cell.failed) == (None, "failed", (0, 1), 2)
    assert list(made.ranking().mean_ranks) == ["linear", "mgda"]
    (row,) = (row for row in made.rows() if row["combiner"] == "mgda")
    assert math.isnan(row["score"])
    text = StringIO()
    made.print(text)
    page = made.report().read_text()
    for shown in (text.getvalue(), page):
        assert "0.000 ±" not in shown
        assert "NaN or infinite values (seeds 0, 1)" in shown
    assert "<td>mgda</td><td>failed</td>" in page
    assert made.tell_errors() == ""  # a result like others, and no error of code


def test_a_seed_that_diverges_counts_as_nothing_and_is_told(tmp_path):
    made = compare(Ends(math.nan, (1,)), out=tmp_path, seeds=2, **QUIET)
    cell = cell_of(made)
    first, second = (run["result"]["score"]["test"] for run in cell.runs)
    assert first > 0 == second
    assert cell.score().mean == pytest.approx(first / 2)
    assert score_text(cell).endswith("(1 of 2 failed)")
    assert cell.troubles == ["NaN or infinite values (seed 1)"]
    assert "failed" not in score_text(cell_of(made, "linear"))


def test_points_beyond_the_reference_are_worth_nothing_and_have_not_failed(tmp_path):
    cell = cell_of(compare(Ends(1e6, (0, 1)), out=tmp_path, seeds=2, **QUIET))
    assert (score_text(cell), cell.troubles) == ("0.000 ± 0.000", [])
