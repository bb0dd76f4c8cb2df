"""Contestants: rules with settings of their own, entered under a name."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

import mtopt
from mtopt.experiments import Budget, Contestant, Suite, compare
from mtopt.experiments._contestant import as_contestant
from mtopt.experiments._plan import TUNING_SEED
from mtopt.experiments.presentation._figures import all_figures
from tests.experiments.tiny import Parabolas, ParabolasTask, tuning_runs

BUDGET = Budget(steps=12, trials=4, seeds=2, evaluations=3)


class Weighted(mtopt.LossCombiner):
    """Equal weights; in no registry."""

    def weights(self, losses):
        return losses.new_full((len(losses),), 0.5)


class PathTask(ParabolasTask):
    """Parabolas evaluated along the way; the second objective as one to maximise."""

    objectives = (mtopt.Objective("near"), mtopt.Objective("closeness", "max"))
    reference_point = (9.0, -9.0)
    budget = quick_budget = BUDGET
    splits_differ = False
    static_front = False
    start = "middle"
    views = (("near", "closeness"), ("extra", "closeness"))

    def __init__(self):
        super().__init__("paths")
        self._prepared = []

    def prepare(self, seed):
        self._prepared.append(seed)

    def trainer(self, combiner, *, learning_rate, seed, point, points, momentum=0.0):
        trainer = super().trainer(combiner, learning_rate=learning_rate, seed=seed, point=point, points=points)
        trainer.optimizer.param_groups[0]["momentum"] = momentum
        return trainer

    def values(self, trainer, split, *, seed):
        assert isinstance(trainer, Parabolas)
        near, far = (float(value.detach()) for value in trainer.losses(None).values())
        return {
            "near": near,
            "closeness": -far,
            "extra": near + far,
            "momentum": trainer.optimizer.defaults["momentum"],
        }

    def landmarks(self, trainer):
        return {"middle": {"near": 1.0, "closeness": -1.0, "extra": 2.0}}

    def front(self, points=50):
        return None


SUITE = Suite(
    "contest",
    (PathTask(),),
    combiners=("linear(0.9)", "heavy", "mgda"),
    contestants=(
        Contestant("linear(0.9)", "linear", hyperparameters={"preference": (0.9, 0.1)}),
        Contestant("heavy", "ngdiff", options={"momentum": 0.5}, tuned=False),
    ),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return compare(SUITE, out=tmp_path_factory.mktemp("contest"), jobs=1, progress=False)


def cell(comparison, name):
    (found,) = (cell for cell in comparison.cells if cell.combiner == name)
    return found


def test_table_has_the_names_and_the_baseline(finished):
    assert finished.combiners == ["linear", "linear(0.9)", "heavy", "mgda"]
    assert cell(finished, "heavy").options == {"momentum": 0.5}


def test_what_is_fixed_is_not_tuned_and_the_rest_is():
    entry = SUITE.contestants[0]
    runs = tuning_runs(SUITE, SUITE.tasks[0], entry, BUDGET)
    assert len(runs) == BUDGET.trials
    assert {run.hyperparameters["preference"] for run in runs} == {(0.9, 0.1)}
    assert len({run.learning_rate for run in runs}) == BUDGET.trials
    free = tuning_runs(SUITE, SUITE.tasks[0], "linear", BUDGET)
    assert "preference" in free[1].hyperparameters


def test_untuned_contestant_tries_one_setting(finished):
    (run,) = tuning_runs(SUITE, SUITE.tasks[0], SUITE.contestants[1], BUDGET)
    low, high = PathTask.learning_rates
    assert run.learning_rate == pytest.approx((low * high) ** 0.5, rel=1e-2)
    assert cell(finished, "heavy").tuned == 1


def test_key_depends_on_options_and_evaluations_and_not_on_the_name():
    task = SUITE.tasks[0]
    plain, renamed, heavy = (
        tuning_runs(SUITE, task, entry, BUDGET)[0].key
        for entry in (
            Contestant("a", "ngdiff"),
            Contestant("b", "ngdiff"),
            Contestant("a", "ngdiff", options={"momentum": 0.5}),
        )
    )
    fewer = tuning_runs(SUITE, task, Contestant("a", "ngdiff"), Budget(steps=12, trials=4, evaluations=2))[0].key
    assert plain == renamed
    assert len({plain, heavy, fewer}) == 3


def test_every_evaluation_is_a_point_of_its_run(finished):
    for found in finished.cells:
        for run in found.runs:
            (path,) = run["result"]["paths"]
            points = np.array(run["result"]["points"]["test"])
            assert path["step"] == [4, 8, 12]
            assert points.tolist() == [
                [near, -close] for near, close in zip(path["near"], path["closeness"], strict=True)
            ]
            assert path["extra"] == pytest.approx(points.sum(1).tolist())
            assert run["result"]["score"]["test"] == pytest.approx(mtopt.pareto.hypervolume(points, [9.0, 9.0]))
            assert run["result"]["metrics"]["near"] == [path["near"][-1]]
            assert run["result"]["landmarks"]["middle"]["near"] == 1.0


def test_path_is_that_of_the_training_itself(finished):
    """The same steps, taken by hand."""
    found = cell(finished, "heavy")
    for run in found.runs:
        task, seed = SUITE.tasks[0], run["seed"]
        trainer = task.trainer(
            mtopt.create_combiner("ngdiff"),
            learning_rate=run["learning_rate"],
            seed=seed,
            point=0,
            points=1,
            momentum=0.5,
        )
        near = []
        for _ in range(3):
            trainer.fit(steps=trainer.step + 4)
            near.append(task.values(trainer, "test", seed=0)["near"])
        assert run["result"]["paths"][0]["near"] == pytest.approx(near, rel=1e-12)


def test_options_reach_the_trainer_and_cosines_are_kept(finished):
    heavy, mgda = (cell(finished, name).runs[0]["result"] for name in ("heavy", "mgda"))
    assert heavy["cosine"] is not None
    assert -1.0 <= heavy["cosine"] <= 1.0
    assert mgda["conflict_rate"] is not None


def test_every_seed_is_prepared_once_before_its_runs(tmp_path):
    task = PathTask()
    compare(Suite("s", (task,)), combiners=["mgda"], seeds=2, trials=1, out=tmp_path, jobs=1, progress=False)
    assert task._prepared == [TUNING_SEED, 0, 1]


def test_report_and_figure_tell_the_paths(finished, tmp_path):
    page = finished.report().read_text()
    for text in (
        "middle",
        "higher is better",
        "at the end of training",
        "linear(0.9)",
        "momentum 0.5",
        "no tuning: heavy.",
    ):
        assert text in page
    names = {path.stem for path in finished.figures(tmp_path)}
    assert "contest-paths-paths" in names
    assert "contest-paths-front" not in names


def test_drawn_path_goes_from_the_start_through_the_means_over_seeds(finished):
    (figure,) = (drawn.figure for drawn in all_figures(finished) if drawn.file_name == "contest-paths-paths")
    left, right = figure.axes
    for found in finished.cells:
        paths = found.paths
        for ax, name, start in ((left, "near", 1.0), (right, "extra", 2.0)):
            (line,) = (line for line in ax.lines if line.get_label() == found.combiner)
            x, y = line.get_xydata().T
            assert x == pytest.approx([start, *np.mean([path[name] for path in paths], axis=0)])
            assert y == pytest.approx([-1.0, *np.mean([path["closeness"] for path in paths], axis=0)])
    plt.close("all")


def test_of_many_paths_the_baseline_the_untuned_and_the_best_are_named(tmp_path):
    rules = ["heavy", "mgda", "pcgrad", "cagrad", "imtl_g", "upgrad", "linear(0.9)"]
    many = compare(SUITE, combiners=rules, seeds=1, trials=2, out=tmp_path, jobs=1, progress=False)
    (drawn,) = (drawn for drawn in all_figures(many) if drawn.kind == "paths")
    scores = {found.combiner: np.mean(found.scores) for found in many.cells}
    assert "all others are grey" in drawn.caption
    for ax in drawn.figure.axes:
        named = {text.get_text() for text in ax.texts if text.get_text()}
        best = named - {"linear", "heavy"}
        assert len(named) - len(best) == 2
        assert len(best) == 3
        assert min(scores[name] for name in best) >= max(scores[name] for name in scores if name not in named)
    plt.close("all")


def test_rule_of_a_module_needs_no_registry(tmp_path):
    name = "tests.experiments.test_contestants:Weighted"
    comparison = compare(SUITE, combiners=[name], seeds=1, trials=1, out=tmp_path, jobs=1, progress=False)
    assert comparison.combiners == ["linear", name]
    assert all(found.runs for found in comparison.cells)


def test_wrong_names_say_what_there_is(tmp_path):
    with pytest.raises(mtopt.UnknownNameError, match=r"rule of suite 'contest' 'hevy'.*'heavy'"):
        compare(SUITE, combiners=["hevy"], out=tmp_path)
    with pytest.raises(ValueError, match="MODULE:CLASS"):
        as_contestant("tests.experiments.tiny:Nothing").rule  # noqa: B018
    with pytest.raises(ValueError, match=r"not a subclass of mtopt\.Combiner"):
        as_contestant("tests.experiments.tiny:Parabolas").rule  # noqa: B018
    with pytest.raises(ValueError, match="distinct names"):
        Suite("twice", (PathTask(),), contestants=(Contestant("a", "mgda"), Contestant("a", "linear")))
