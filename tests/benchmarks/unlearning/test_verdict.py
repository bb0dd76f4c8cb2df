"""Utility at equal forgetting, on paths whose crossing is known."""

import math

import pytest

import mtopt
from benchmarks.unlearning import verdict_figure
from benchmarks.unlearning.tofu_task import GAP, ROUGE, UTILITY
from benchmarks.unlearning.unlearning_task import BEFORE, RETRAINED
from benchmarks.unlearning.verdict import Verdict, best_indistinguishable, main, utility_at_equal_forgetting, verdicts
from mtopt.experiments import Contestant, Suite, compare
from tests.experiments.test_contestants import PathTask

LANDMARKS = {BEFORE: {ROUGE: 1.0, UTILITY: 0.7, GAP: 0.6}, RETRAINED: {ROUGE: 0.5, UTILITY: 0.65, GAP: 0.1}}


@pytest.mark.parametrize(
    ("rouge", "utility", "wanted"),
    [
        ([0.8, 0.5, 0.2], [0.69, 0.66, 0.1], 0.66),  # an evaluation that falls on it
        ([0.8, 0.4, 0.2], [0.68, 0.64, 0.1], 0.65),  # three quarters of the way
        ([0.0, 0.0, 0.0], [0.1, 0.1, 0.1], 0.4),  # overshot at once: half way from the start
        ([0.6, 0.4, 0.9], [0.68, 0.64, 0.7], 0.66),  # the first crossing counts
        ([0.9, 0.8, 0.51], [0.7, 0.7, 0.7], math.nan),
    ],
)
def test_utility_at_equal_forgetting(rouge, utility, wanted):
    path = {ROUGE: rouge, UTILITY: utility}
    assert utility_at_equal_forgetting(path, LANDMARKS) == pytest.approx(wanted, nan_ok=True)


def test_best_indistinguishable():
    path = {UTILITY: [0.7, 0.6, 0.65, 0.1], "forget quality": [0.01, 0.06, 0.5, 0.9]}
    assert best_indistinguishable(path) == 0.65
    assert math.isnan(best_indistinguishable({UTILITY: [0.7], "forget quality": [0.05]}))


class Forgetting(PathTask):
    """Parabolas under the names of the unlearning task; utility falls as ROUGE does."""

    objectives = (mtopt.Objective(GAP), mtopt.Objective(UTILITY, "max"))
    reference_point = (9.0, -9.0)
    views = ((GAP, UTILITY),)
    start = BEFORE

    def __init__(self):
        super().__init__()
        self.name = "tofu"

    def values(self, trainer, split, *, seed):
        found = super().values(trainer, split, seed=seed)
        shown = {GAP: found["near"], UTILITY: found["closeness"], ROUGE: 1.0 - trainer.step / 24}
        return {**shown, "forget quality": 0.1}

    def landmarks(self, trainer):
        return LANDMARKS


def test_table_of_a_comparison(tmp_path, capsys):
    task = Forgetting()
    suite = Suite("s", (task,), contestants=(Contestant("fixed", "mgda", tuned=False),))
    options = {"combiners": ["fixed"], "trials": 2, "seeds": 2, "jobs": 1, "progress": False}
    comparison = compare(suite, out=tmp_path, **options)
    found = {verdict.name: verdict for verdict in verdicts(comparison)}
    assert set(found) == {"linear", "fixed"}
    for cell in comparison.cells:
        runs = [run["result"]["paths"][0] for run in cell.runs]
        # step 12 of 24 is where ROUGE-L is one half, and the last evaluation
        assert found[cell.combiner].utility == pytest.approx([path[UTILITY][-1] for path in runs])
        assert found[cell.combiner].indistinguishable == pytest.approx([max(path[UTILITY]) for path in runs])
    assert len(found["linear"].trials) == 2 + 5  # the sweep of static weights comes on top
    assert len(found["fixed"].trials) == 1
    main([str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == [f"| {v.name}" for v in verdicts(comparison)]
    assert "one setting" in next(line for line in lines if line.startswith("| fixed"))
    assert lines[-1] == f"{RETRAINED}: {UTILITY} 0.650, {GAP} 0.100, {ROUGE} 0.500"
    main([str(tmp_path), "--figure", str(tmp_path / "verdict")])
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'verdict.png'}\n")
    assert (tmp_path / "verdict.png").stat().st_size > 5_000


def test_figure_has_the_means_and_ranges_and_colours_what_was_not_tuned(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(verdict_figure, "save", lambda found, path, formats: drawn.append(found) or [path])
    tuned = Verdict("tuned", (0.5, 0.6), (0.6, math.nan), (), (0.4, 0.5))
    fixed = Verdict("fixed", (0.4, 0.6), (0.5, 0.6), (), (0.4,))
    never = Verdict("never", (0.1, 0.2), (math.nan, math.nan), (), (0.1, 0.2))
    verdict_figure.draw([tuned, fixed, never], [(BEFORE, 0.7), (RETRAINED, 0.65)], tmp_path)
    utilities, scores = drawn[0].axes
    marks = {line.get_ydata()[0]: line for line in utilities.lines if line.get_marker() == "o"}
    assert {place: mark.get_xdata()[0] for place, mark in marks.items()} == pytest.approx({0: 0.6, 1: 0.55})
    assert marks[0].get_markerfacecolor() == "white"
    assert marks[0].get_color() == verdict_figure.OTHERS != marks[1].get_color()
    assert [list(line.get_xdata()) for line in scores.lines if line.get_marker() != "o"] == [
        [0.5, 0.6],
        [0.4, 0.6],
        [0.1, 0.2],
    ]


def test_comparison_without_the_task_is_refused(tmp_path):
    compare(PathTask(), combiners=["mgda"], trials=1, seeds=1, out=tmp_path, jobs=1, progress=False)
    with pytest.raises(ValueError, match=r"no finished run of the task 'tofu'.*paths"):
        main([str(tmp_path)])
