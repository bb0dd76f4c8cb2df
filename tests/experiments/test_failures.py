"""What a run's exception becomes: a result of its own, whose it is said, and nothing else lost."""

import pytest

import mtopt
from mtopt.experiments import Comparison, Suite, compare
from tests.experiments import tiny

QUIET = {"progress": False, "seeds": 2, "trials": 2}


class FailsOnSeedOne(tiny.ParabolasTask):
    def __init__(self, error):
        super().__init__("fails")
        self.error = error

    def values(self, trainer, split, *, seed):
        if trainer.model.seed == 1:
            raise type(self.error)(*self.error.args)
        return super().values(trainer, split, seed=seed)

    def trainer(self, combiner, *, seed, **settings):
        trainer = super().trainer(combiner, seed=seed, **settings)
        trainer.model.seed = seed
        return trainer


ERRORS = [KeyError("a bug"), ValueError("of the task"), TypeError("of the task"), FileNotFoundError("data.csv")]


@pytest.mark.parametrize("error", [*ERRORS, SystemExit(0)], ids=lambda error: type(error).__name__)
def test_an_exception_in_one_run_is_its_result_and_the_others_are_kept(error, tmp_path):
    with pytest.warns(UserWarning, match="seed 1 failed, the others go on"):
        made = compare(FailsOnSeedOne(error), combiners=["mgda"], out=tmp_path, jobs=1, **QUIET)
    for found in (made, Comparison(tmp_path)):
        assert [(f.combiner, f.task, f.seed, f.by, f.kind) for f in found.failures] == [
            (name, "fails", 1, "code", type(error).__name__) for name in ("linear", "mgda")
        ]
        assert all(f.message == str(error) and "raise type(self.error)" in f.traceback for f in found.failures)
        assert all(f.traceback.count("mtopt/experiments/") == 0 for f in found.failures)
        assert [[run["seed"] for run in cell.runs] for cell in found.cells] == [[0], [0]]
        assert all(cell.errors == (f"{type(error).__name__}: {error}",) for cell in found.cells)


def test_an_exception_in_a_process_of_its_own_is_kept_likewise(tmp_path):
    with pytest.warns(UserWarning, match="the others go on"):
        made = compare(FailsOnSeedOne(KeyError("a bug")), combiners=["mgda"], out=tmp_path, jobs=2, **QUIET)
    assert {(f.seed, f.by, f.kind) for f in made.failures} == {(1, "code", "KeyError")}
    assert all("raise type(self.error)" in f.traceback for f in made.failures)


class Refuses(mtopt.GramianCombiner):
    """A rule whose losses must be positive, it says."""

    def weights(self, gramian, losses=None):
        raise ValueError("losses must be positive")


class Miscounts(mtopt.GramianCombiner):
    """A rule with a bug."""

    def weights(self, gramian, losses=None):
        return {}["nothing"]


@pytest.mark.parametrize(
    ("rule", "by"), [("Refuses", "rule"), ("Miscounts", "code")], ids=["a refusal", "a bug in the rule"]
)
@pytest.mark.filterwarnings("ignore:.*the others go on")
def test_a_rule_that_does_not_fit_and_one_with_a_bug_are_told_apart(rule, by, tmp_path):
    made = compare(tiny.task, combiners=[f"{__name__}:{rule}"], out=tmp_path, jobs=1, **QUIET)
    assert {failure.by for failure in made.failures} == {by}
    assert {failure.combiner for failure in made.failures} == {f"{__name__}:{rule}"}


class OneBatch(tiny.ParabolasTask):
    """Its data are one batch an epoch, and MoDo takes three of them a step."""

    def data(self, split, *, seed):
        return [None]


@pytest.mark.filterwarnings("ignore:.*the others go on")
def test_a_rule_that_the_trainer_refuses_is_no_error_of_the_task(tmp_path):
    made = compare(OneBatch(), combiners=["modo"], out=tmp_path, jobs=1, **QUIET)
    assert {(f.combiner, f.by) for f in made.failures} == {("modo", "rule")}
    assert all("a step of MoDo" in f.message for f in made.failures)


@pytest.mark.filterwarnings("ignore:.*the others go on")
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_seed_that_cannot_be_prepared_leaves_the_others(jobs, tmp_path):
    class Unprepared(tiny.ParabolasTask):
        def prepare(self, seed):
            if seed == 1:
                raise FileNotFoundError("no model for seed 1")

    made = compare(Unprepared(), combiners=["mgda"], out=tmp_path, jobs=jobs, **QUIET)
    assert {(f.seed, f.by, f.message) for f in made.failures} == {(1, "code", "no model for seed 1")}
    assert all([run["seed"] for run in cell.runs] == [0] for cell in made.cells)


def test_failed_runs_run_again_once_the_task_is_mended(tmp_path):
    task = FailsOnSeedOne(KeyError("a bug"))
    task.fingerprint = lambda: "the same"
    with pytest.warns(UserWarning, match="the others go on"):
        compare(task, out=tmp_path, jobs=1, **QUIET)
    mended = tiny.ParabolasTask("fails")
    mended.fingerprint = lambda: "the same"
    assert compare(mended, out=tmp_path, jobs=1, **QUIET).failures == []


def test_what_an_older_store_kept_of_a_failure_is_read(tmp_path):
    made = compare(tiny.task, out=tmp_path, jobs=1, **QUIET)
    (cell, *_) = made.cells
    made.store.add(run_of(made, cell), "failed", {"error": "ValueError: losses must be positive"})
    (failure,) = Comparison(tmp_path).failures
    assert (failure.by, failure.kind, failure.message) == ("rule", "ValueError", "losses must be positive")


def run_of(made, cell):
    from mtopt.experiments._plan import final_runs

    budget = tiny.ParabolasTask.budget
    trials = tiny.tuning_runs(Suite("parabolas", (tiny.task,)), tiny.task, cell.combiner, budget)
    (chosen,) = (run for run in trials if run.key == made.request["cells"][0]["chosen"])
    return final_runs(chosen, 1)[0]
