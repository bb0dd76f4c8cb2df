"""Trainings that end in NaN or infinity: said to have failed, and no score of 0.000 ± 0.000."""

import math
import sys
from io import StringIO

import pytest

from mtopt.cli import main
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

    def values(self, trainer, split, *, seed):
        values = super().values(trainer, split, seed=seed)
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
    assert '<td>mgda</td><td data-label="score">failed</td>' in page
    told = made.tell_errors()
    assert "2 runs of ends/ends failed (mgda seeds 0, 1):" in told
    assert f"NaN: 'near' is {value} on the test split (Ends.values, {__file__}:" in told


def test_a_seed_that_diverges_counts_as_nothing_and_is_told(tmp_path):
    made = compare(Ends(math.nan, (1,)), out=tmp_path, seeds=2, **QUIET)
    cell = cell_of(made)
    first, second = (run["result"]["score"]["test"] for run in cell.runs)
    assert first > 0
    assert math.isnan(second)  # not a score of 0
    assert cell.score().value == pytest.approx(first / 2)
    assert score_text(cell).endswith("(1 of 2 failed)")
    assert cell.troubles == ["NaN or infinite values (seed 1)"]
    assert "failed" not in score_text(cell_of(made, "linear"))


def test_points_beyond_the_reference_are_worth_nothing_and_have_not_failed(tmp_path):
    cell = cell_of(compare(Ends(1e6, (0, 1)), out=tmp_path, seeds=2, **QUIET))
    assert (score_text(cell), cell.troubles, cell.incidents) == ("0.000 ± 0.000", [], [])


class Skips(tiny.ParabolasTask):
    """Its first loss is NaN in the first two steps of seed 1."""

    def trainer(self, combiner, *, seed, **settings):
        made = super().trainer(combiner, seed=seed, **settings)
        plain, calls = made.losses, iter(range(10_000))

        def losses(batch):
            found = plain(batch)
            return {**found, "near": found["near"] * math.nan} if seed == 1 and next(calls) < 2 else found

        made.losses = losses
        return made


def test_skipped_steps_are_told_with_task_rule_and_seed_and_have_a_status(tmp_path, capsys):
    made = compare(Skips("skips"), out=tmp_path, seeds=2, **QUIET)
    assert [(f.task, f.combiner, f.seed, f.by) for f in made.incidents] == [
        ("skips", "linear", 1, "steps"),
        ("skips", "mgda", 1, "steps"),
    ]
    told = "1 run of skips/skips skipped steps (mgda seed 1):\nSkipped: 2 of 20 steps"
    assert "(linear seed 1; mgda seed 1)" in made.tell_errors() or told in made.tell_errors()
    assert main(["report", str(tmp_path)]) == 1
    assert made.tell_errors() in capsys.readouterr().err


class LacksAnObjective(tiny.ParabolasTask):
    def values(self, trainer, split):  # what does not depend on the seed need not take it
        return {"near": 1.0}


def test_a_missing_objective_is_told_with_the_place_of_the_code(tmp_path):
    with pytest.warns(UserWarning, match="the others go on"):
        made = compare(LacksAnObjective("lacks"), out=tmp_path, seeds=1, **QUIET)
    told = made.tell_errors()
    assert "of lacks/lacks failed (linear seeds 1000003 (tuning), 0" in told
    assert f"(LacksAnObjective.values, {__file__}:" in told
    assert "lack ['far'], found ['near']" in told


class DrawsItsSplit(tiny.ParabolasTask):
    def values(self, trainer, split, *, seed):
        return {"near": float(seed % 7), "far": 1.0}


def test_values_are_given_the_seed_of_the_run(tmp_path):
    made = compare(DrawsItsSplit("draws"), out=tmp_path, seeds=3, **QUIET)
    points = [run["result"]["points"]["test"] for run in cell_of(made).runs]
    assert points == [[[0.0, 1.0]], [[1.0, 1.0]], [[2.0, 1.0]]]


def test_nan_on_the_validation_split_alone_is_told_since_nothing_was_selected(tmp_path):
    class Blind(tiny.ParabolasTask):
        def values(self, trainer, split, *, seed):
            values = super().values(trainer, split, seed=seed)
            return {**values, "near": math.nan} if split == "validation" else values

    made = compare(Blind("blind"), out=tmp_path, seeds=1, **QUIET)
    assert "no configuration has finite values on the validation split" in made.tell_errors()
    assert "mgda seed 1000003 (tuning)" in made.tell_errors()


def test_a_report_says_what_the_comparison_said_with_the_same_status(tmp_path, monkeypatch, capsys):
    (tmp_path / "nan_suite.py").write_text(
        "from tests.experiments.test_diverged import Ends\nsuite = Ends(float('nan'), (0, 1))\n"
    )
    monkeypatch.setattr("sys.path", [str(tmp_path), *sys.path])
    out = str(tmp_path / "out")
    arguments = ["compare", "nan_suite", "--combiners", "mgda", "--seeds", "2", "--trials", "1", "--jobs", "1"]
    assert main([*arguments, "--out", out]) == 1
    first = capsys.readouterr()
    assert main(["report", out]) == 1
    again = capsys.readouterr()
    assert first.out == again.out
    assert first.err[first.err.index("mtopt: ") :] == again.err[again.err.index("mtopt: ") :]
    assert "mgda seeds 0, 1" in again.err
