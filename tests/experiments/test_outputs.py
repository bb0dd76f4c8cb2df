"""What a task says is checked when it comes, and what is as good as a number is taken for one."""

import re
from io import StringIO

import numpy as np
import pytest
import torch

import mtopt
from mtopt._errors import TaskError
from mtopt.experiments import Budget, Suite, compare
from tests.experiments import tiny

QUIET = {"progress": False, "seeds": 1, "trials": 1, "jobs": 1, "combiners": ["mgda"]}


class Says(tiny.ParabolasTask):
    """Its values are made from the right ones."""

    def __init__(self, change, name="says"):
        super().__init__(name)
        self.change = change

    def values(self, trainer, split, *, seed):
        return self.change(dict(super().values(trainer, split, seed=seed)))


class Counts(Says):
    """Names its metric anew each time."""

    def values(self, trainer, split, *, seed):
        self._looks = getattr(self, "_looks", 0) + (split == "test")
        return {**super().values(trainer, split, seed=seed), f"metric {self._looks}": 1.0}


@pytest.mark.parametrize(
    "like", [np.float32, np.float64, torch.tensor, lambda v: torch.tensor([v], requires_grad=True), np.array]
)
def test_what_is_as_good_as_a_number_is_taken(like, tmp_path):
    plain = compare(Says(dict), out=tmp_path / "plain", **QUIET)
    other = compare(Says(lambda v: {k: like(x) for k, x in v.items()}), out=tmp_path / "other", **QUIET)
    assert other.failures == []
    for one, same in zip(plain.rows(), other.rows(), strict=True):
        assert same["score"] == pytest.approx(one["score"], rel=1e-6)


WRONG = {
    "None": (lambda v: {**v, "extra": None}, "TypeError", r"'extra', must be a real number, found a NoneType"),
    "text": (lambda v: {**v, "far": "1.5"}, "TypeError", r"'far', must be a real number, found a str: '1.5'"),
    "complex": (lambda v: {**v, "far": 1j}, "TypeError", r"must be a real number, found a complex"),
    "vector": (lambda v: {**v, "far": torch.zeros(3)}, "TypeError", r"found a Tensor \(3,\)"),
    "no mapping": (lambda v: list(v.values()), "TypeError", r"must be a mapping from names to numbers, found a list"),
    "nothing": (lambda v: None, "TypeError", r"must be a mapping from names to numbers, found a NoneType"),
    "number names": (lambda v: {**v, 3: 1.0}, "TypeError", r"must have texts for names, found 3"),
    "an objective less": (lambda v: {"near": v["near"]}, "ValueError", r"lack \['far'\], found \['near'\]"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_values_that_no_report_can_be_made_of_are_refused_by_name(kind, tmp_path):
    change, error, message = WRONG[kind]
    with pytest.warns(UserWarning, match="the others go on"):
        made = compare(Suite("two", (Says(change), Says(dict, "right"))), out=tmp_path, **QUIET)
    assert {(failure.task, failure.by, failure.kind) for failure in made.failures} == {("says", "code", error)}
    for failure in made.failures:
        assert failure.message.startswith("values of task 'says' on the test split")
        assert re.search(message, failure.message), failure.message
    printed = StringIO()
    made.print(printed)
    assert "right" in printed.getvalue()


def test_metrics_with_other_names_each_time_are_refused(tmp_path):
    task = Counts(dict)
    task.budget = Budget(steps=4, evaluations=2)
    with pytest.warns(UserWarning, match="the others go on"):
        made = compare(task, out=tmp_path, **QUIET)
    assert {failure.kind for failure in made.failures} == {"ValueError"}
    assert all("must have the same names each time" in failure.message for failure in made.failures)
    made.report()


def test_a_metric_that_some_runs_lack_leaves_its_place_empty(tmp_path):
    made = compare(Counts(dict), out=tmp_path, **QUIET)
    assert made.failures == []
    assert "metric" in made.report().read_text()


def test_rules_whose_trainers_have_other_losses_stand_in_one_report(tmp_path):
    class Renamed(tiny.Parabolas):
        def losses(self, batch):
            return {"close" if name == "near" else name: loss for name, loss in super().losses(batch).items()}

    class Differs(tiny.ParabolasTask):
        def trainer(self, combiner, **settings):
            made = super().trainer(combiner, **settings)
            return Renamed(made.model, made.optimizer, combiner) if combiner.needs == "gramian" else made

        def values(self, trainer, split, *, seed):
            values = dict(super().values(trainer, split, seed=seed))
            return {"near": values.pop("close", None) or values.pop("near"), **values}

    made = compare(Differs(), out=tmp_path, **QUIET)
    assert made.failures == []
    page = made.report().read_text()
    assert "close (training)" in page
    assert "near (training)" in page


def test_a_trainer_that_is_none_is_told(tmp_path):
    class Forgets(tiny.ParabolasTask):
        def trainer(self, combiner, **settings):
            super().trainer(combiner, **settings)

    with pytest.warns(UserWarning, match="must return a MultiLossTrainer, found a NoneType"):
        compare(Forgets(), out=tmp_path, **QUIET)


class Declares(tiny.ParabolasTask):
    def __init__(self, **attributes):
        super().__init__("declares")
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"objectives": (mtopt.Objective("near"),), "reference_point": (9.0,)}, r"two or more .* found \['near'\]"),
        ({"objectives": ("near", "far")}, r"must be a tuple of mtopt.Objective"),
        ({"reference_point": (9.0,)}, r"reference_point must be 2 finite numbers, found \(9.0,\)"),
        ({"reference_point": (9.0, float("inf"))}, r"reference_point must be 2 finite numbers"),
        ({"reference_point": (9.0, None)}, r"reference_point must be a real number, found a NoneType"),
        ({"learning_rates": (0.1, 0.01)}, r"learning_rates must be the two ends of a range"),
        ({"budget": None}, r"budget must be a Budget, found None"),
        ({"labels": ("one",)}, r"labels must be one for each of \['near', 'far'\]"),
        ({"name": ""}, r"needs texts for name and about"),
        ({"views": (("near",),)}, r"views must be pairs"),
        ({"front": lambda: np.zeros((3, 3))}, r"front must be \(points, 2\)"),
        ({"front": lambda: [[1.0, "x"]]}, r"front'\]\[0\]\[0\] must be a number"),
        ({"front_hypervolume": lambda: 0.0}, r"front_hypervolume must be positive"),
        ({"landscape": lambda: {"x": [1.0]}}, r"landscape'\] lacks 'y'"),
        ({"title": 3}, r"title'\] must be a str, found 3"),
    ],
)
def test_what_is_declared_is_checked_before_anything_runs(attributes, message, tmp_path):
    with pytest.raises((ValueError, TypeError), match=message):
        compare(Declares(**attributes), out=tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", [0, -1, 2.5, np.int64(3), True, None])
def test_budgets_are_whole_and_positive(wrong):
    with pytest.raises(ValueError, match="seeds of a Budget must be a positive int"):
        Budget(steps=3, seeds=wrong)


@pytest.mark.parametrize("error", [TypeError("their own"), FileNotFoundError("front.csv"), ValueError("their own")])
def test_exceptions_of_a_task_are_not_taken_for_wrong_use(error, tmp_path):
    def raises():
        raise error

    with pytest.raises(TaskError, match="cannot be described") as told:
        compare(Declares(front=raises), out=tmp_path, **QUIET)
    assert told.value.__cause__ is error


def test_values_of_views_and_landmarks_are_checked(tmp_path):
    class Drawn(tiny.ParabolasTask):
        budget = Budget(steps=4, evaluations=2)
        views = (("near", "speed"),)

    with pytest.warns(UserWarning, match=r"views of task 'parabolas' name 'speed', and values have"):
        compare(Drawn(), out=tmp_path, **QUIET)
