"""The verdict end to end: small tasks are trained, and what is better by construction wins."""

import zlib
from io import StringIO

import pytest
import torch

import mtopt
from mtopt.experiments import Budget, Comparison, Contestant, Suite, Task, compare
from tests.experiments import tiny

TASKS = 8


class Middle(mtopt.LossCombiner):
    """Ascends the logarithm of (1 - f1) (1 - f2), the hypervolume of a single point up to (1, 1)."""

    def weights(self, losses):
        return 1.0 / (1.0 - losses)


class Hollow(mtopt.MultiLossTrainer):
    """Fonseca and Fleming's problem: the front is hollow, and no static weights lead to its middle."""

    def losses(self, batch):
        (x,) = self.model.parameters()
        return {name: 1 - torch.exp(-(x + side).square().sum()) for name, side in (("left", 1.0), ("right", -1.0))}


class HollowTask(Task):
    """One training is a run: its end is one point, whose score is greatest in the middle."""

    objectives = (mtopt.Objective("left"), mtopt.Objective("right"))
    reference_point = (1.0, 1.0)
    learning_rates = (0.3, 0.6)
    budget = quick_budget = Budget(steps=25, trials=2, seeds=2)
    static_front = False

    def __init__(self, name):
        self.name = name

    def trainer(self, combiner, *, learning_rate, seed, point, points):
        start = torch.Generator().manual_seed(zlib.crc32(f"{self.name} {seed}".encode()))
        model = torch.nn.ParameterList([torch.nn.Parameter(torch.rand(1, generator=start) - 0.5)])
        return Hollow(model, torch.optim.SGD(model.parameters(), lr=learning_rate), combiner)

    def values(self, trainer, split, *, seed):
        return {name: float(value.detach()) for name, value in trainer.losses(None).items()}


PLANTED = Contestant("planted", f"{__name__}:Middle")
TWINS = tuple(Contestant(f"twin {seed}", "rlw", hyperparameters={"seed": seed}) for seed in (1, 2))
COPY = Contestant("copy", "linear")
TILTED = Contestant("tilted", "linear", hyperparameters={"preference": [0.45, 0.55]})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    entered = (PLANTED, *TWINS, COPY, TILTED)
    suite = Suite(
        "hollow",
        tuple(HollowTask(f"task {number}") for number in range(TASKS)),
        combiners=tuple(each.name for each in entered),
        contestants=entered,
    )
    return compare(suite, out=tmp_path_factory.mktemp("hollow"), jobs=1, progress=False)


def test_a_planted_rule_beats_tuned_scalarization_with_significance(finished):
    verdict = finished.verdict()
    assert "planted" in verdict.better
    (planted,) = (row for row in verdict.rows() if row["rule"] == "planted")
    assert (planted["tasks"], planted["ahead"], planted["behind"]) == (TASKS, TASKS, 0)
    assert planted["p_value"] == 2.0 ** (1 - TASKS)
    assert planted["difference_low"] > 0.3
    # the middle is at (1 - 1/e, 1 - 1/e)
    (cell, *_) = (cell for cell in finished.cells if cell.combiner == "planted")
    assert cell.score().value == pytest.approx(2.718281828**-2, rel=1e-3)


def test_two_copies_of_one_rule_are_not_told_apart(finished):
    """Random weights from two seeds: alike but for chance, so that their runs differ."""
    one, other = (next(cell for cell in finished.cells if cell.combiner == twin.name) for twin in TWINS)
    assert one.scores != other.scores
    (row,) = (row for row in finished.verdict(against="twin 1").rows() if row["rule"] == "twin 2")
    assert row["outcome"] == "undecided"
    assert row["p_value"] > 0.1


def test_the_baseline_under_another_name_is_chosen_alike_and_does_not_differ(finished):
    (row,) = (row for row in finished.verdict().rows() if row["rule"] == "copy")
    assert (row["difference"], row["p_value"], row["ahead"], row["behind"]) == (0.0, 1.0, 0, 0)
    cells = {cell.combiner: cell for cell in finished.cells if cell.task["name"] == "task 0"}
    assert cells["copy"].chosen["key"] == cells["linear"].chosen["key"]
    assert cells["copy"].tuned == cells["linear"].tuned


def test_static_scalarization_that_was_chosen_otherwise_is_named(finished):
    assert finished.verdict().static == {"tilted"}
    assert "chosen in another way than linear: tilted." in str(finished.verdict())
    assert "chosen in another way" not in str(finished.verdict(against="twin 1"))


def test_the_verdict_comes_first_on_the_terminal(finished):
    headline = finished.verdict().headline
    assert "planted" in headline
    printed = StringIO()
    finished.print(printed)
    words = " ".join(printed.getvalue().split())
    assert words.startswith(headline)


def test_it_is_the_same_from_the_store_alone(finished):
    again = Comparison(finished.store.directory)
    assert again.verdict().rows() == finished.verdict().rows()
    assert str(again.verdict()) == str(finished.verdict())


def test_another_rule_to_compare_with_is_one_of_the_comparison(finished):
    assert finished.verdict(against="planted").called == "planted"
    with pytest.raises(mtopt.UnknownNameError, match="did you mean 'planted'"):
        finished.verdict(against="plantd")


def test_few_tasks_are_said_to_be_few(tmp_path, capsys):
    comparison = compare(tiny.task, combiners=["mgda"], out=tmp_path, jobs=1, progress=False, quick=True)
    comparison.print()
    words = " ".join(capsys.readouterr().out.split())
    assert words.startswith("mgda cannot be told from tuned static scalarization (linear) over 1 task.")
    assert "Over 1 task Wilcoxon's test can give no p-value below 1: no difference can be significant" in words


def test_a_run_that_a_rule_refuses_scores_nothing(tmp_path):
    class RefusesTheSecondSeed(tiny.ParabolasTask):
        def trainer(self, combiner, *, seed, **settings):
            trainer = super().trainer(combiner, seed=seed, **settings)
            trainer.sign = -1.0 if seed == 1 and combiner.name == "gls" else 1.0
            plain = trainer.losses
            trainer.losses = lambda batch: {name: trainer.sign * value for name, value in plain(batch).items()}
            return trainer

    made = compare(RefusesTheSecondSeed("r"), combiners=["gls"], out=tmp_path, jobs=1, progress=False)
    (cell,) = (cell for cell in made.cells if cell.combiner == "gls")
    assert [failure.by for failure in cell.failures] == ["rule"]
    first, second = cell.scores
    assert first > 0
    assert second == 0
    assert cell.score().value == pytest.approx(first / 2)
