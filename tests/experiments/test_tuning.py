"""Who proposes the trials: the same number for every rule, the defaults among them, the same ones after a kill."""

import argparse
import math
import sqlite3
import sys
from contextlib import closing

import numpy as np
import optuna
import pytest

import mtopt
from mtopt import cli
from mtopt.experiments import Budget, compare
from mtopt.experiments._contestant import as_contestant
from mtopt.experiments._space import SearchSpace, search_space
from mtopt.experiments._store import ResultStore
from mtopt.experiments._tuners import TUNERS, make_tuner
from tests.experiments import tiny

QUIET = {"jobs": 1, "progress": False}
BUDGET = Budget(steps=2, trials=5, seeds=1)
LINE = SearchSpace(rates=(1e-3, 1e-1), ranges={}, weights=0, defaults={})


class ShortTask(tiny.ParabolasTask):
    budget = BUDGET


TASK = ShortTask("short")


def trials_of(comparison):
    """By rule the learning rate and hyper-parameters of each trial, in order; a sweep of weights left out."""
    found = {}
    for cell in comparison.request["cells"]:
        keys = [key for key in cell["tune"] if key not in cell["sweep"]]
        rows = comparison.store.results(keys)
        found[cell["combiner"]] = [(rows[key]["learning_rate"], rows[key]["hyperparameters"]) for key in keys]
    return found


@pytest.mark.parametrize("rule", [name for name in mtopt.list_combiners() if as_contestant(name).rule.search_space])
def test_the_defaults_of_a_rule_have_their_place_in_the_cube(rule):
    space = search_space(TASK, as_contestant(rule), BUDGET)
    point = space.default_point()
    if any(space.defaults[name] is None for name, spec in space.ranges.items() if spec[0] != "choice"):
        assert point is None  # such as "set from the first losses", which lies nowhere in a range
        return
    rate, values = space.configuration(point)
    assert rate == pytest.approx(math.sqrt(math.prod(TASK.learning_rates)))
    for name, spec in space.ranges.items():
        default = space.defaults[name]
        inside = default in spec[1:] if spec[0] == "choice" else spec[1] <= default <= spec[2]
        if inside:  # a default outside is moved to the nearest end
            assert values[name] == (default if spec[0] == "choice" else pytest.approx(default, rel=5e-3))


def test_an_equal_preference_is_the_default_one():
    space = SearchSpace(rates=(1e-3, 1e-1), ranges={}, weights=4, defaults={})
    assert space.configuration(space.default_point())[1] == {"preference": [0.25] * 4}


@pytest.mark.parametrize("tuning", TUNERS)
def test_every_rule_has_as_many_trials_and_its_defaults_first(tuning, tmp_path):
    made = compare(TASK, combiners=["gradnorm"], tuning=tuning, out=tmp_path / "a", **QUIET)
    trials = trials_of(made)
    assert {rule: len(found) for rule, found in trials.items()} == dict.fromkeys(trials, BUDGET.trials)
    middle = float(f"{math.sqrt(math.prod(TASK.learning_rates)):.3g}")
    assert all(found[0] == (middle, {}) for found in trials.values())
    assert all(len({str(trial) for trial in found}) >= BUDGET.trials - 1 for found in trials.values())
    assert not made.failures
    again = compare(TASK, combiners=["gradnorm"], tuning=tuning, out=tmp_path / "b", **QUIET)
    assert trials_of(again) == trials
    if tuning != "halton":
        assert made.name == f"short-{tuning}-gradnorm"
        page = made.report().read_text()
        assert f"proposals of Optuna {optuna.__version__}" in page
    else:
        assert "scrambled Halton points over the learning rate" in made.report().read_text()


@pytest.mark.parametrize(("tuning", "stored"), [("tpe", False), ("gp", False), ("nsga2", False), ("nsga2", True)])
def test_a_killed_comparison_goes_on_with_the_same_trials(tuning, stored, tmp_path, monkeypatch):
    def settings(folder):
        url = f"sqlite:///{tmp_path}/{folder}.db" if stored else None
        return {"combiners": ["graddrop"], "tuning": tuning, "tuning_storage": url, "out": tmp_path / folder, **QUIET}

    whole = compare(TASK, **settings("whole"))
    add, left = ResultStore.add, [7]

    def add_or_die(self, run, status, result):
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        add(self, run, status, result)

    with monkeypatch.context() as patched:
        patched.setattr(ResultStore, "add", add_or_die)
        with pytest.raises(KeyboardInterrupt):
            compare(TASK, **settings("killed"))
    assert len(ResultStore(tmp_path / "killed").all_keys()) == 7
    log = tmp_path / "log"
    monkeypatch.setenv(tiny.LOG, str(log))
    resumed = compare(TASK, **settings("killed"))
    assert sorted(resumed.store.all_keys()) == sorted(whole.store.all_keys())
    assert len(log.read_text().splitlines()) == len(whole.store.all_keys()) - 7
    assert trials_of(resumed) == trials_of(whole)


def test_a_database_holds_the_study_with_the_scores_on_validation(tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    for _ in range(2):  # the second time nothing is asked for again
        made = compare(TASK, combiners=["linear"], tuning="tpe", tuning_storage=url, out=tmp_path, **QUIET)
    (name,) = optuna.get_all_study_names(url)
    study = optuna.load_study(study_name=name, storage=url)
    (cell,) = made.request["cells"]
    keys = [key for key in cell["tune"] if key not in cell["sweep"]]
    rows = made.store.results(keys)
    assert [trial.value for trial in study.trials] == [rows[key]["result"]["score"]["validation"] for key in keys]
    low, high = TASK.learning_rates
    rates = [low * (high / low) ** trial.params["learning rate"] for trial in study.trials]
    assert [rows[key]["learning_rate"] for key in keys] == pytest.approx(rates, rel=5e-3)
    with closing(sqlite3.connect(tmp_path / "studies.db")) as connection:
        assert connection.execute("SELECT DISTINCT state FROM trials").fetchall() == [("COMPLETE",)]


@pytest.mark.parametrize(("tuning", "trials", "seeds"), [("tpe", 20, 9), ("gp", 8, 3)])
def test_a_sampler_that_learns_comes_nearer_than_halton(tuning, trials, seeds):
    """The score has its maximum, 0, at 0.83: the median gap over seeds."""

    def best_gap(name, seed):
        tuner, best = make_tuner(name, LINE, trials, seed=seed, study=f"{name} {seed}", storage=None), -math.inf
        while proposed := tuner.propose():
            scores = [-(((0.5 if point is None else point[0]) - 0.83) ** 2) for point in proposed]
            best = max(best, *scores)
            tuner.observe(scores)
        return -best

    gaps = {name: np.median([best_gap(name, 1000 * seed) for seed in range(seeds)]) for name in (tuning, "halton")}
    assert gaps[tuning] < gaps["halton"]


def test_runs_that_fail_or_diverge_count_as_nothing_dominated():
    tuner = make_tuner("gp", LINE, 8, seed=0, study="s", storage=None)
    scores = []
    while tuner.propose():
        scores.append(0.0 if len(scores) % 2 else 1.0)
        tuner.observe(scores[-1:])
    assert len(scores) == 8


def test_a_default_that_no_range_holds_is_tried_and_not_learnt_from():
    space = SearchSpace(rates=(1e-3, 1e-1), ranges={"c": ("choice", 1, 2)}, weights=0, defaults={"c": None})
    assert space.default_point() is None
    tuner, proposed = make_tuner("tpe", space, 6, seed=0, study="s", storage=None), []
    while points := tuner.propose():
        proposed += points
        tuner.observe([float(len(proposed))])
    assert proposed[0] is None
    assert len(proposed) == 6
    assert {space.configuration(point)[1]["c"] for point in proposed[1:]} == {1, 2}


def test_what_cannot_be_used_is_refused_before_the_first_run(tmp_path, monkeypatch):
    with pytest.raises(LookupError, match="unknown tuning 'tp': did you mean 'tpe'"):
        compare(TASK, tuning="tp", out=tmp_path / "out", **QUIET)
    with pytest.raises(ValueError, match="tuning 'halton' has none; leave it out"):
        compare(TASK, tuning_storage="sqlite:///x.db", out=tmp_path / "out", **QUIET)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"pip install 'mtopt\[tuning\]'"):
        compare(TASK, tuning="gp", out=tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()


def test_the_command_knows_every_tuner():
    def actions(parser):
        for action in parser._actions:
            yield action
            if isinstance(action, argparse._SubParsersAction):
                for each in action.choices.values():
                    yield from actions(each)

    (found,) = (action for action in actions(cli._parser()) if action.dest == "tuning")
    assert tuple(found.choices) == TUNERS
    assert found.default == "halton"
